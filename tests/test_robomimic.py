"""robomimic's HDF5: there and back is exact, damage is told, and robomimic's own cloning learns from such a file."""

import json
import os
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from episodes import assert_equal_exactly, episode
from separate import TOP, environment, run

from robopref.arrays import InputError
from robopref.data.convert import convert
from robopref.data.robomimic import read_hdf5, write_hdf5
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.validate import validate


def write(root, episodes):
    with StoreWriter(root, fps=20) as writer:
        for trajectory in episodes:
            writer.add(trajectory)
    return TrajectoryStore(root)


@pytest.fixture
def file(tmp_path):
    write_hdf5([episode(i, 9 + i) for i in range(12)], tmp_path / "demos.hdf5")
    return tmp_path / "demos.hdf5"


def test_there_and_back_is_exact(tmp_path):
    episodes = [episode(i, 9 + i, state=7 if i else None, chunk=i != 1, task="lift") for i in range(12)]
    store = write(tmp_path / "store", episodes)
    assert "12 episodes" in convert(tmp_path / "store", tmp_path / "demos.hdf5", "robomimic")
    assert "12 episodes" in convert(tmp_path / "demos.hdf5", tmp_path / "again", "lerobot")
    for got, wanted in zip(TrajectoryStore(tmp_path / "again"), episodes, strict=True):
        assert_equal_exactly(got, wanted)
    assert TrajectoryStore(tmp_path / "again").fingerprint == store.fingerprint


def test_pictures_become_uint8_observations(tmp_path):
    write_hdf5([episode(0, 6, camera=True)], tmp_path / "demos.hdf5")
    (got,) = read_hdf5(tmp_path / "demos.hdf5")
    assert np.array_equal(got.images["corner"], episode(0, 6, camera=True).images["corner"])


def test_the_file_has_robomimics_layout(file):
    with h5py.File(file, "r") as content:
        data = content["data"]
        assert data.attrs["total"] == sum(9 + i for i in range(12))
        assert json.loads(data.attrs["env_args"]) == {"env_name": "push-v3", "env_type": 2, "env_kwargs": {}}
        demo = data["demo_3"]
        assert demo.attrs["num_samples"] == 12 == len(demo["actions"]) == len(demo["dones"])
        assert demo["dones"][-1] == 1 and demo["dones"][:-1].sum() == 0
        assert np.array_equal(demo["next_obs/state"][:-1], demo["obs/state"][1:])
        train, valid = ({name.decode() for name in content[f"mask/{key}"]} for key in ("train", "valid"))
        assert valid == {"demo_9"} and not train & valid and len(train | valid) == 12


def test_a_file_of_others_is_read_with_its_observations_joined_by_name(file):
    with h5py.File(file, "a") as content:
        for demo in content["data"].values():
            del demo["robopref"]
            demo["obs/object"] = np.full((len(demo["actions"]), 3), 7.0)
            demo["rewards"][...] = np.arange(len(demo["actions"])) > 4
            for key in ("task", "seed", "policy", "env"):
                del demo.attrs[key]
    got = next(read_hdf5(file))
    assert np.array_equal(got.observation[:, :3], np.full((9, 3), 7.0)) and got.observation.shape == (9, 8)
    assert got.task == "push-v3" and got.success.tolist() == [i > 4 for i in range(9)]


def test_rewards_that_do_not_say_success_are_refused(file):
    with h5py.File(file, "a") as content:
        del content["data/demo_0/robopref"]
    with pytest.raises(InputError, match="success"):
        next(read_hdf5(file))
    assert len(validate(file)) == 1


def test_a_torn_file_is_told_and_a_missing_part_is_named(file, tmp_path):
    assert validate(file) == []
    (tmp_path / "torn.hdf5").write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match="torn"):
        convert(tmp_path / "torn.hdf5", tmp_path / "store", "lerobot")
    with h5py.File(file, "a") as content:
        del content["data/demo_5/actions"]
    with pytest.raises(InputError, match="demo_5"):
        convert(file, tmp_path / "store", "lerobot")
    assert "demo_5" in validate(file)[0]
    assert not (tmp_path / "store").exists()


def test_actions_that_robomimic_refuses_are_refused_and_leave_nothing(tmp_path):
    wild = replace(episode(0), action=episode(0).action * 3)
    with pytest.raises(InputError, match=r"\[-1, 1\]"):
        write_hdf5([episode(1), wild], tmp_path / "demos.hdf5")
    assert list(tmp_path.iterdir()) == []


TRAIN = """
import sys
from robomimic.config import config_factory
from robomimic.scripts.train import train

config = config_factory("bc")
with config.values_unlocked():
    config.train.data, config.train.output_dir = sys.argv[1], sys.argv[2]
    config.train.cuda, config.train.num_data_workers = False, 0
    config.train.num_epochs, config.train.batch_size = 4, 64
    config.train.hdf5_filter_key, config.train.hdf5_validation_filter_key = "train", "valid"
    config.experiment.validate = True
    config.experiment.epoch_every_n_steps, config.experiment.validation_epoch_every_n_steps = 60, 5
    config.experiment.save.every_n_epochs = 4
    config.experiment.rollout.enabled = config.experiment.render_video = False
    config.experiment.logging.terminal_output_to_txt = config.experiment.logging.log_tb = False
    config.observation.modalities.obs.low_dim = ["state"]
    config.algo.actor_layer_dims = [64, 64]
    config.algo.optim_params.policy.learning_rate.initial = 0.003
config.lock()
train(config, device="cpu")
"""


@pytest.fixture(scope="module")
def robomimic_python(request):
    """An environment in which the extra `robomimic` was installed with the constraints (it compiles: cmake, gcc)."""
    wanted = ["-e", f"{TOP}[robomimic]"]
    return environment(request.config.cache, sys.executable, "robomimic", "constraints.txt", wanted)


@pytest.mark.separate
def test_robomimics_own_cloning_learns_from_a_converted_store(robomimic_python, tmp_path):
    weights = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    episodes = [episode(i, 40) for i in range(20)]
    write(tmp_path / "store", [replace(t, action=np.tanh(t.observation @ weights)) for t in episodes])
    convert(tmp_path / "store", tmp_path / "demos.hdf5", "robomimic")
    (tmp_path / "train.py").write_text(TRAIN)
    command = [robomimic_python, "train.py", str(tmp_path / "demos.hdf5"), str(tmp_path / "out")]
    told = run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})
    reports = told.split("Validation Epoch ")[1:]
    losses = [json.loads(text[text.index("{") : text.index("}") + 1])["Loss"] for text in reports]
    # Predicting the mean costs the variance of the actions, about 0.4; the actions are a function of the state.
    assert len(losses) == 4 and losses[-1] < 0.01
    assert list((tmp_path / "out").rglob("*.pth"))
