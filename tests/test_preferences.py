"""The preference sidecar: rows are added and superseded, never changed; what does not belong is refused."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.data.files import read_json, write_json
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.validate import validate


def write(root, episodes):
    with StoreWriter(root) as writer:
        for trajectory in episodes:
            writer.add(trajectory)
    return TrajectoryStore(root)


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "store", [episode(i, 10 + i, seed=i // 2) for i in range(6)])


def pair(first=0, second=1, prob=1.0, **more):
    return Pair(Window(first, 0, 8), Window(second, 2, 10), prob, **more)


def row_files(store):
    return sorted((store.root / "meta/preferences").glob("pairs-*.parquet"))


def test_a_pair_comes_back_with_everything_that_was_said(store):
    told = pair(
        prob=0.25, weight=0.5, annotator="ada", source="human", label_model="people", teacher="t", strategy="random",
        propensity=0.125, noise_model="none", criterion="success", prompt="open it", question_id="q1", choice="second",
        strength=0.7, reasons="slow", margin=1.5, response_time_s=2.5, segment_policy="random", split="train",
        notes="n", created_at="2026-01-01T00:00:00+00:00", uid="u1",
    )  # fmt: skip
    assert PreferenceStore(store).append([told]) == 1
    (got,) = PreferenceStore(TrajectoryStore(store.root)).pairs()
    derived = ("pair_id", "first_hash", "second_hash", "same_init", "init_seed", "policy_first", "policy_second")
    assert replace(got, **{name: getattr(told, name) for name in derived}) == told
    assert (got.first_hash, got.second_hash) == (store.episode_hash(0), store.episode_hash(1))
    assert (got.policy_first, got.policy_second) == ("policy-0", "policy-1")


def test_no_answer_is_stored_as_null_and_comes_back_as_nan(store):
    PreferenceStore(store).append([pair(prob=math.nan)])
    assert pq.read_table(row_files(store)[0])["prob_first"].null_count == 1
    (got,) = PreferenceStore(store).pairs()
    assert math.isnan(got.prob_first) and not got.answered


def test_a_pair_and_its_swap_have_one_pair_id_and_two_uids(store):
    one = Pair(Window(0, 0, 5), Window(1, 0, 5), 1.0)
    PreferenceStore(store).append([one, replace(one, first=one.second, second=one.first, prob_first=0.0)])
    first, second = PreferenceStore(store).pairs()
    assert first.pair_id == second.pair_id and first.uid != second.uid


def test_episodes_from_one_reset_are_known_to_start_alike(store):
    PreferenceStore(store).append(
        [Pair(Window(0, 0, 5), Window(1, 0, 5), 1.0), Pair(Window(0, 0, 5), Window(2, 0, 5), 1.0)]
    )
    assert [(p.same_init, p.init_seed) for p in PreferenceStore(store).pairs()] == [(True, 0), (False, -1)]


def test_appending_adds_files_and_changes_none(store):
    sidecar = PreferenceStore(store)
    sidecar.append([pair(0, 1)])
    before = row_files(store)[0].read_bytes()
    sidecar.append([pair(2, 3)])
    assert [p.name for p in row_files(store)] == ["pairs-000.parquet", "pairs-001.parquet"]
    assert row_files(store)[0].read_bytes() == before
    assert [p.first.episode for p in sidecar.pairs()] == [0, 2]


def test_the_newest_row_of_a_chain_counts_and_keeps_its_place(store):
    sidecar = PreferenceStore(store)
    sidecar.append([pair(0, 1, 1.0, uid="a"), pair(2, 3, 1.0, uid="b")])
    sidecar.append([pair(0, 1, 0.0, uid="c", supersedes="a")])
    sidecar.append([pair(0, 1, math.nan, uid="d", supersedes="c", choice="undo")])
    assert [p.uid for p in sidecar.pairs()] == ["d", "b"] and len(sidecar.rows()) == 4


def test_a_row_with_a_known_uid_is_not_added_again(store):
    sidecar = PreferenceStore(store)
    assert sidecar.append([pair(uid="a")]) == 1
    assert sidecar.append([pair(uid="a"), pair(2, 3, uid="b")]) == 1
    assert sidecar.append(sidecar.rows()) == 0
    assert [p.uid for p in sidecar.pairs()] == ["a", "b"] and len(row_files(store)) == 2


def test_the_same_question_asked_twice_is_two_rows_named_the_same_in_every_run(store, tmp_path):
    other = write(tmp_path / "other", list(store))
    for where in (store, other):
        assert PreferenceStore(where).append([pair(), pair()]) == 2
    first, second = ([p.uid for p in PreferenceStore(where).pairs()] for where in (store, other))
    assert first == second and len(set(first)) == 2


def test_writers_at_the_same_time_lose_no_row(store):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: PreferenceStore(store).append([pair(uid=str(i))]), range(12)))
    assert {p.uid for p in PreferenceStore(store).pairs()} == {str(i) for i in range(12)}


def test_episodes_may_be_added_to_the_store(store, tmp_path):
    PreferenceStore(store).append([pair()])
    longer = write(tmp_path / "longer", [*store, episode(99)])
    (store.root / "meta/preferences").rename(longer.root / "meta/preferences")
    assert len(PreferenceStore(longer).pairs()) == 1
    PreferenceStore(longer).append([pair(1, 6)])
    assert len(PreferenceStore(longer).pairs()) == 2


# What does not belong


def refused(store, match):
    with pytest.raises(InputError, match=match) as caught:
        PreferenceStore(store).pairs()
    assert str(caught.value).count("\n") < 5
    findings = validate(store.root)
    assert len(findings) == 1 and "\n" not in findings[0]


def test_another_store_under_the_same_preferences_is_refused(store, tmp_path):
    PreferenceStore(store).append([pair()])
    other = write(tmp_path / "other", [episode(i, 20) for i in range(6)])
    (store.root / "meta/preferences").rename(other.root / "meta/preferences")
    refused(other, "fingerprint does not match")


def test_a_changed_fingerprint_is_refused(store):
    PreferenceStore(store).append([pair()])
    path = store.root / "meta/preferences/info.json"
    write_json(path, read_json(path) | {"store_fingerprint": "0" * 64})
    refused(store, "fingerprint does not match")


def test_a_judged_episode_that_changed_is_refused(store):
    PreferenceStore(store).append([pair()])
    rewrite(store, "second_hash", "0" * 64)
    refused(store, "episode 1 has changed")


def test_another_format_version_is_refused(store):
    PreferenceStore(store).append([pair()])
    path = store.root / "meta/preferences/info.json"
    write_json(path, read_json(path) | {"version": "2.0"})
    refused(store, "Update robopref")


def test_a_missing_info_file_is_refused(store):
    PreferenceStore(store).append([pair()])
    (store.root / "meta/preferences/info.json").unlink()
    refused(store, "no such file")


def rewrite(store, column, value):
    """Put another value into the first row, as a careless tool would."""
    path = row_files(store)[0]
    rows = pq.read_table(path)
    changed = rows.to_pylist()
    changed[0][column] = value
    pq.write_table(rows.from_pylist(changed, schema=rows.schema), path)


@pytest.mark.parametrize("value", [-0.01, 1.01, 100.0, math.inf])
def test_a_label_outside_zero_to_one_is_refused_when_made_and_when_read(store, value):
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        pair(prob=value)
    PreferenceStore(store).append([pair()])
    rewrite(store, "prob_first", value)
    refused(store, r"row 0.*\[0, 1\]")


def test_a_pair_outside_an_episode_is_refused_when_added_and_when_read(store):
    sidecar = PreferenceStore(store)
    for outside in (Pair(Window(0, 0, 11), Window(1, 0, 5), 1.0), Pair(Window(0, 0, 5), Window(6, 0, 5), 1.0)):
        with pytest.raises(InputError, match="wanted one"):
            sidecar.append([pair(2, 3), outside])
    assert row_files(store) == []
    with pytest.raises(InputError, match="start < end"):
        Window(0, 5, 5)
    sidecar.append([pair()])
    rewrite(store, "second_end", 12)
    refused(store, r"\[2, 12\) of episode 1.*11 steps")


def test_missing_columns_are_told_by_name(store):
    PreferenceStore(store).append([pair()])
    path = row_files(store)[0]
    pq.write_table(pq.read_table(path).drop_columns(["prob_first"]), path)
    refused(store, "prob_first")


def test_a_torn_file_is_refused(store):
    PreferenceStore(store).append([pair()])
    path = row_files(store)[0]
    path.write_bytes(path.read_bytes()[:-20])
    refused(store, "torn")


def test_two_tasks_in_one_pair_must_be_meant(tmp_path):
    store = write(tmp_path / "store", [episode(0, task="a"), episode(1, task="b")])
    with pytest.raises(InputError, match="cross_task"):
        PreferenceStore(store).append([pair()])
    assert PreferenceStore(store).append([pair(cross_task=True)]) == 1


def test_an_episode_in_two_splits_is_refused(store):
    sidecar = PreferenceStore(store)
    sidecar.append([pair(0, 1, split="train")])
    with pytest.raises(InputError, match="splits"):
        sidecar.append([pair(2, 1, split="val")])


def test_superseding_nothing_is_refused(store):
    with pytest.raises(InputError, match="supersedes"):
        PreferenceStore(store).append([pair(supersedes="nobody")])


def test_weights_and_propensities_out_of_range_are_refused():
    for wrong in ({"weight": -1.0}, {"weight": math.nan}, {"propensity": 0.0}, {"propensity": 1.5}):
        with pytest.raises(InputError, match="wanted"):
            pair(**wrong)
