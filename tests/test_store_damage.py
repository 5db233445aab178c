"""A damaged store is told in at most five lines, by opening it and by `validate`, and is never read wrongly."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.data.convert import convert
from robopref.data.files import read_json, write_json
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.validate import validate


@pytest.fixture
def root(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for i in range(4):
            writer.add(episode(i, 10 + i))
    return tmp_path / "store"


def refused(root):
    with pytest.raises(InputError) as caught:
        TrajectoryStore(root)
    assert str(caught.value).count("\n") < 5
    findings = validate(root)
    assert len(findings) == 1 and "\n" not in findings[0]
    return str(caught.value)


def data_file(root):
    return root / "data/chunk-000/file-000.parquet"


def test_a_folder_that_is_no_store_is_told(tmp_path):
    assert "meta/info.json" in refused(tmp_path)


def test_a_torn_data_file_is_told(root):
    whole = data_file(root).read_bytes()
    data_file(root).write_bytes(whole[: len(whole) // 2])
    assert "torn" in refused(root)


def test_a_torn_episode_table_is_told(root):
    (root / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1")
    assert "torn" in refused(root)


def test_a_damaged_page_is_told_when_it_is_read(root):
    whole = bytearray(data_file(root).read_bytes())
    whole[4:400] = b"\xff" * 396
    data_file(root).write_bytes(bytes(whole))
    with pytest.raises(InputError, match="torn or damaged"):
        TrajectoryStore(root)[0]
    assert validate(root)


def test_a_missing_data_file_is_told(root):
    data_file(root).unlink()
    assert "no such file" in refused(root)


def test_a_missing_column_is_told_by_name(root):
    table = pq.read_table(data_file(root))
    pq.write_table(table.drop_columns(["next.success"]), data_file(root))
    assert "next.success" in refused(root)


def test_a_feature_that_info_does_not_know_is_told_by_name(root):
    info = read_json(root / "meta/info.json")
    del info["features"]["next.reward"]
    write_json(root / "meta/info.json", info)
    assert "next.reward" in refused(root)


def test_another_version_is_told(root):
    info = read_json(root / "meta/info.json")
    write_json(root / "meta/info.json", info | {"codebase_version": "v2.1"})
    assert "v2.1" in refused(root)


def test_an_info_file_that_is_no_json_is_told(root):
    (root / "meta/info.json").write_text("{")
    assert "not JSON" in refused(root)


def test_rows_that_are_missing_are_told(root):
    table = pq.read_table(data_file(root))
    pq.write_table(table.slice(0, 20), data_file(root))
    assert "rows" in refused(root)


def test_a_changed_value_is_found_by_validate(root):
    assert validate(root) == []
    with pq.ParquetFile(data_file(root)) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    at = groups[1].schema.get_field_index("next.reward")
    groups[1] = groups[1].set_column(at, groups[1].schema.field(at), pa.array(np.zeros(groups[1].num_rows, np.float32)))
    with pq.ParquetWriter(data_file(root), groups[0].schema) as file:
        for group in groups:
            file.write_table(group)
    findings = validate(root)
    assert len(findings) == 1 and "episode 1" in findings[0] and "hash" in findings[0]


def test_an_unknown_format_and_an_existing_target_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="Did you mean 'robomimic'"):
        convert(root, tmp_path / "x", "robomimik")
    with pytest.raises(InputError, match="exists already"):
        convert(root, root, "lerobot")
    with pytest.raises(InputError, match="no file or folder"):
        convert(tmp_path / "nothing", tmp_path / "x", "lerobot")
    with pytest.raises(InputError, match="no file or folder"):
        validate(tmp_path / "nothing")
