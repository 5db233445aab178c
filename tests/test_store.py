"""The trajectory store: what goes in comes out, nothing half-written appears, and damage is told."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episodes import assert_equal_exactly, episode

import robopref.data.writer as writer_module
from robopref.arrays import InputError
from robopref.data.convert import convert
from robopref.data.files import atomic_file, atomic_folder, read_json, write_json
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.validate import validate


def write(root, episodes, **options):
    with StoreWriter(root, **options) as writer:
        for number, trajectory in enumerate(episodes):
            assert writer.add(trajectory) == number
    return TrajectoryStore(root)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "store", [episode(i, 10 + i) for i in range(4)])
    return tmp_path / "store"


def test_every_field_comes_back_exactly_by_index_by_iteration_and_in_bulk(tmp_path):
    episodes = [episode(i, 10 + i, task=f"task-{i % 2}") for i in range(5)]
    store = write(tmp_path / "store", episodes)
    assert len(store) == 5
    for i, wanted in enumerate(episodes):
        assert_equal_exactly(store[i], wanted)
    for got, wanted in zip(store, episodes, strict=True):
        assert_equal_exactly(got, wanted)
    for got, wanted in zip(store.load(sim_state=True), episodes, strict=True):
        assert_equal_exactly(got, wanted)
    for got, wanted in zip(store.load(), episodes, strict=True):
        assert_equal_exactly(got, replace(wanted, sim_state=None))
    assert_equal_exactly(store.read(2, sim_state=False), replace(episodes[2], sim_state=None))
    assert [(e.task, e.seed, e.policy, e.length) for e in store.episodes][3] == ("task-1", 3, "policy-1", 13)


def test_simulator_states_of_several_widths_and_late_chunks_come_back_exactly(tmp_path):
    widths = [None, 5, 9, 3, None]
    episodes = [episode(i, state=width, chunk=i in (2, 4)) for i, width in enumerate(widths)]
    store = write(tmp_path / "store", episodes)
    assert store.info["features"]["sim_state"]["shape"] == [9]
    for got, wanted in zip(store, episodes, strict=True):
        assert_equal_exactly(got, wanted)
    executed = [pq.read_table(p)["policy.executed"] for p in sorted((tmp_path / "store/data").rglob("*.parquet"))]
    rows = np.concatenate([np.array(part.to_pylist()) for part in executed])
    assert not rows[:24].any() and rows[24:36].any() and not rows[36:48].any()


def test_widths_of_one_come_back_with_their_axis(tmp_path):
    wanted = episode(0, 6, state=1)
    thin = {name: getattr(wanted, name)[:, :1] for name in ("observation", "action", "executed")}
    wanted = replace(wanted, chunk=wanted.chunk[:, :1, :1], **thin)
    assert_equal_exactly(write(tmp_path / "store", [wanted])[0], wanted)


def test_an_index_counts_from_the_end_when_negative_and_stops_at_the_store(root):
    store = TrajectoryStore(root)
    assert_equal_exactly(store[-1], store[3])
    with pytest.raises(IndexError):
        store[4]


def test_arrays_that_were_read_may_be_written_to(root):
    trajectory = TrajectoryStore(root)[0]
    arrays = (trajectory.observation, trajectory.action, trajectory.success, trajectory.chunk, trajectory.sim_state)
    assert all(array.flags.writeable for array in arrays)


def test_pictures_come_back_upright_and_nearly_equal(tmp_path):
    episodes = [episode(i, 9 + i, camera=True) for i in range(3)]
    store = write(tmp_path / "store", episodes, render={"camera": "corner", "upright": True})
    assert store.info["robopref"]["render"] == {"camera": "corner", "upright": True}
    for i in (2, 0, 1):
        got, wanted = store.read(i, images=True).images["corner"], episodes[i].images["corner"]
        assert got.shape == wanted.shape and got.dtype == np.uint8
        assert np.abs(got.astype(int) - wanted).mean() < 12
        # The neighbouring frame is further away than the right one: no frame is off by one.
        assert np.abs(got[1:].astype(int) - wanted[1:]).mean() < np.abs(got[1:].astype(int) - wanted[:-1]).mean()
    assert store[0].images == {}


def test_pictures_of_odd_size_are_refused(tmp_path):
    odd = replace(episode(0, 4, camera=True), images={"corner": np.zeros((4, 31, 32, 3), np.uint8)})
    with pytest.raises(InputError, match="even"):
        write(tmp_path / "store", [odd])
    assert list(tmp_path.iterdir()) == []


def test_the_same_episodes_give_the_same_files(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, [episode(i, camera=True, state=4 + i) for i in range(3)])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_the_fingerprint_changes_with_content_and_not_with_the_place(tmp_path):
    episodes = [episode(i) for i in range(3)]
    first, again = write(tmp_path / "a", episodes), write(tmp_path / "b", episodes)
    changed = episodes[1].observation.copy()
    changed[3, 2] += 1e-3
    other = write(tmp_path / "c", [episodes[0], replace(episodes[1], observation=changed), episodes[2]])
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.episode_hash(0) == other.episode_hash(0) and first.episode_hash(1) != other.episode_hash(1)


def test_statistics_are_those_of_all_frames(root):
    rows = np.concatenate([t.observation for t in TrajectoryStore(root)]).astype(np.float64)
    stats = read_json(root / "meta/stats.json")["observation.state"]
    np.testing.assert_allclose(stats["mean"], rows.mean(0), rtol=1e-9)
    np.testing.assert_allclose(stats["std"], rows.std(0), rtol=1e-9)
    np.testing.assert_allclose(stats["q90"], np.quantile(rows, 0.9, axis=0), rtol=1e-9)
    assert stats["count"] == [len(rows)]


def test_many_episodes_are_spread_over_files(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_EPISODES_PER_FILE", 2)
    monkeypatch.setattr(writer_module, "_FLUSH", 3)
    episodes = [episode(i, state=3 if i < 3 else 6) for i in range(7)]
    store = write(tmp_path / "store", episodes)
    assert len(list((tmp_path / "store/data").rglob("*.parquet"))) == 4  # 0-1, 2 | 3-4, 5-6: the state grew at 3
    for got, wanted in zip(store.load(sim_state=True), episodes, strict=True):
        assert_equal_exactly(got, wanted)
    assert validate(tmp_path / "store") == []


def test_an_exception_while_writing_leaves_nothing(tmp_path):
    def stop_half_way():
        with StoreWriter(tmp_path / "store") as writer:
            writer.add(episode(0, camera=True))
            assert not (tmp_path / "store").exists()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_one_sweeps_up(tmp_path):
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]\n"
        "from episodes import episode; from robopref.data.store import StoreWriter\n"
        "with StoreWriter(sys.argv[1]) as w:\n    w.add(episode(0)); os.kill(os.getpid(), 9)"
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store"), here], check=False)
    assert done.returncode == -9 and not (tmp_path / "store").exists() and len(list(tmp_path.iterdir())) == 1
    write(tmp_path / "store", [episode(0)])
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_an_existing_store_is_not_written_over(root):
    with pytest.raises(InputError, match="exists already"):
        write(root, [episode(0)])
    assert len(TrajectoryStore(root)) == 4


def test_a_store_without_episodes_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="no episode"):
        write(tmp_path / "store", [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "other", [episode(1, expert=False), episode(1, camera=True), replace(episode(1), chunk=np.zeros((12, 3, 2), np.float32), executed=np.ones((12, 3), bool))]
)  # fmt: skip
def test_an_episode_of_another_shape_is_refused(tmp_path, other):
    with pytest.raises(InputError, match="another store"):
        write(tmp_path / "store", [episode(0), other])


# Damage: each is told in at most five lines.


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


# Files


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def stop_half_way():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert read_json(path) == {"a": 1}


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "f", replace=True) as folder:
            (folder / "x").write_text(content)
    assert (tmp_path / "f/x").read_text() == "new" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="exists"), atomic_folder(tmp_path / "f"):
        pass


FULL = """
import json, resource, shutil, signal, sys
sys.path[:0] = [sys.argv[2]]
import numpy as np
from pathlib import Path
from episodes import episode
from robopref.arrays import InputError
from robopref.data.convert import convert
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore
root = Path(sys.argv[1])
store, sidecar = TrajectoryStore(root / "store"), PreferenceStore(TrajectoryStore(root / "store"))
limit = int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if limit:  # otherwise the disk is a small one: fill it up to the last 60 kB
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
else:
    (root / "store/ballast").write_bytes(bytes(max(shutil.disk_usage(root).free - 60_000, 0)))
def write():
    with StoreWriter(root / "new", fps=10) as writer:
        for i in range(40):
            writer.add(episode(i, 200, state=300))
def pictures():
    with StoreWriter(root / "new", fps=10) as writer:
        for i in range(40):
            writer.add(episode(i, 300, camera=True, state=0))
def hdf5():
    convert(root / "store", root / "new.hdf5", "robomimic")
def append():
    rng = np.random.default_rng(0)
    sidecar.append([Pair(Window(0, 0, 5), Window(1, 0, 5), 1.0, notes=rng.bytes(99).hex()) for _ in range(9000)])
told = []
for job in (write, pictures, hdf5, append):
    try:
        job()
        told.append("nothing")
    except InputError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def run_full(folder, limit):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "error", "-c", FULL, str(folder), here, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for told in json.loads(done.stdout):
        assert "disk is full" in told and told.count("\n") < 5
    assert sorted(p.name for p in folder.iterdir()) == ["store"]
    assert validate(folder / "store") == []
    assert list((folder / "store/meta/preferences").glob("*")) in ([], [folder / "store/meta/preferences/info.json"])


def test_a_full_quota_is_told_and_damages_nothing(tmp_path):
    write(tmp_path / "store", [episode(i, 150) for i in range(6)])
    run_full(tmp_path, 30_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_damages_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        write(disk / "store", [episode(i, 150) for i in range(6)])
        run_full(disk, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


STREAM = """
import resource, sys
sys.path[:0] = [sys.argv[2]]
from dataclasses import replace
from episodes import episode
from robopref.data.store import StoreWriter, TrajectoryStore
some = [episode(i, 100, state=250) for i in range(20)]
with StoreWriter(sys.argv[1]) as writer:
    for i in range(10_000):
        writer.add(replace(some[i % 20], seed=i))
store = TrajectoryStore(sys.argv[1])
assert sum(len(t) for t in store) == 1_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_ten_thousand_episodes_stream_in_bounded_memory(tmp_path):
    command = [sys.executable, "-c", STREAM, str(tmp_path / "store"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1500  # MiB


def test_an_unknown_format_and_an_existing_target_are_refused(root, tmp_path):
    with pytest.raises(InputError, match="Did you mean 'robomimic'"):
        convert(root, tmp_path / "x", "robomimik")
    with pytest.raises(InputError, match="exists already"):
        convert(root, root, "lerobot")
    with pytest.raises(InputError, match="no file or folder"):
        convert(tmp_path / "nothing", tmp_path / "x", "lerobot")
    with pytest.raises(InputError, match="no file or folder"):
        validate(tmp_path / "nothing")
