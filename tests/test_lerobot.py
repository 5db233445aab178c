"""lerobot itself loads what the store writes, pictures too, and finds the same values. Needs Python 3.12."""

import os

import numpy as np
import pytest
from episodes import episode
from separate import find_python312, lerobot, run

from robopref.data.store import StoreWriter, TrajectoryStore

pytestmark = pytest.mark.separate

CHECK = """
import sys
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

root, wanted = sys.argv[1], np.load(sys.argv[2])
cameras = [key for key in wanted if key.startswith("observation.images.")]
fps = 20
windows = {"action": [0.0, 1 / fps], "observation.state": [-1 / fps, 0.0]}
data = LeRobotDataset("made/up", root=root, video_backend="pyav")
ahead = LeRobotDataset("made/up", root=root, video_backend="pyav", delta_timestamps=windows)
lengths = wanted["lengths"]
assert (data.num_episodes, data.num_frames, data.fps) == (len(lengths), lengths.sum(), fps)
starts = np.concatenate([[0], np.cumsum(lengths)])
for i in range(data.num_frames):
    item = data[i]
    episode = int(np.searchsorted(starts, i, side="right") - 1)
    assert item["task"] == str(wanted["tasks"][episode])
    assert (int(item["episode_index"]), int(item["frame_index"])) == (episode, i - starts[episode])
    for key in wanted.files:
        if key in ("lengths", "tasks", "sim_state"):
            continue
        got = item[key].numpy()
        if key in cameras:
            got = np.round(255 * got.transpose(1, 2, 0))
            assert np.abs(got - wanted[key][i]).max() <= 2, (key, i)
        else:
            assert np.array_equal(got.reshape(-1), wanted[key][i].reshape(-1)), (key, i)
    both = ahead[i]["action"].numpy()
    following = min(i + 1, starts[episode + 1] - 1)
    assert np.array_equal(both, wanted["action"][[i, following]])
# As arrow, because the formats for arrays turn float64 into float32.
state = np.array(data.hf_dataset.with_format("arrow")[:]["sim_state"].to_pylist())
assert state.dtype == np.float64 and np.array_equal(state, wanted["sim_state"])
np.testing.assert_allclose(data.meta.stats["action"]["mean"], wanted["action"].mean(0), rtol=1e-5, atol=1e-7)
for camera in cameras:
    assert data.meta.stats[camera]["mean"].shape == (3, 1, 1)
print("equal", data.num_frames)
"""


@pytest.fixture(scope="module")
def lerobot_python(request):
    return lerobot(request.config.cache, find_python312())


@pytest.mark.parametrize("camera", [False, True], ids=["states", "pictures"])
def test_lerobot_finds_the_values_that_were_written(lerobot_python, tmp_path, camera):
    # Widths of the simulator state and chunks change on the way, so that the store has several files.
    episodes = [
        episode(i, 9 + i, state=4 + i // 2, chunk=i > 1, camera=camera, task=f"open the drawer {i % 2}")
        for i in range(5)
    ]
    with StoreWriter(tmp_path / "store", fps=20) as writer:
        for trajectory in episodes:
            writer.add(trajectory)
    np.savez(tmp_path / "wanted.npz", **expected(episodes, TrajectoryStore(tmp_path / "store")))
    (tmp_path / "check.py").write_text(CHECK)
    scrubbed = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    command = [lerobot_python, "check.py", str(tmp_path / "store"), "wanted.npz"]
    assert "equal" in run(command, cwd=tmp_path, env=scrubbed | offline)


def expected(episodes, store):
    """Column name -> values of all frames."""
    widest = max(t.sim_state.shape[1] for t in episodes)

    def flat(t, name, width):
        value = getattr(t, name)
        return np.zeros((len(t), width)) if value is None else value.reshape(len(t), -1)

    columns = {
        "observation.state": [t.observation for t in episodes],
        "action": [t.action for t in episodes],
        "next.reward": [t.reward for t in episodes],
        "next.success": [t.success for t in episodes],
        "next.done": [np.arange(len(t)) == len(t) - 1 for t in episodes],
        "policy.chunk": [flat(t, "chunk", 8) for t in episodes],
        "policy.executed": [flat(t, "executed", 4) for t in episodes],
        "sim_state_len": [np.full(len(t), t.sim_state.shape[1]) for t in episodes],
        "sim_state": [np.pad(t.sim_state, ((0, 0), (0, widest - t.sim_state.shape[1]))) for t in episodes],
        "extra.expert_action": [t.extra["expert_action"] for t in episodes],
    }
    for camera in store.cameras:
        columns[f"observation.images.{camera}"] = [store.read(i, images=True).images[camera] for i in range(len(store))]
    lengths, tasks = np.array([len(t) for t in episodes]), np.array([t.task for t in episodes])
    return {name: np.concatenate(parts) for name, parts in columns.items()} | {"lengths": lengths, "tasks": tasks}
