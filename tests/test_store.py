"""The trajectory store: what goes in comes out, and nothing half-written appears."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from episodes import assert_equal_exactly, episode

import robopref.data.writer as writer_module
from robopref.arrays import InputError
from robopref.data.files import read_json
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


def test_numbers_that_are_none_are_refused_before_they_are_written(tmp_path):
    good, bad = episode(0), episode(1)
    reward, distance = bad.reward.copy(), bad.extra["distance"].copy()
    reward[3], distance[2] = np.nan, np.inf
    with StoreWriter(tmp_path / "store") as writer:
        writer.add(good)
        for broken, name in (
            (replace(bad, reward=reward), "reward"),
            (replace(bad, extra={"distance": distance}), "distance"),
        ):
            with pytest.raises(InputError, match=f"infinity in {name} of episode 1"):
                writer.add(broken)
    assert_equal_exactly(TrajectoryStore(tmp_path / "store").read(0), good)


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


STREAM = """
import sys
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
# The kernel's high-water mark of this program; getrusage would also count the process that started it.
line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(line.split()[1]) / 1024)
"""


@pytest.mark.slow
def test_ten_thousand_episodes_stream_in_bounded_memory(tmp_path):
    command = [sys.executable, "-c", STREAM, str(tmp_path / "store"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1500  # MiB
