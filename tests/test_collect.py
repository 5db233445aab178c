"""Collecting: replicas of a reset differ by noise alone, and stored states bring a frame back."""

import numpy as np
import pytest

from robopref.checkpoint import save
from robopref.data.store import TrajectoryStore
from robopref.policies.diffusion import Diffusion
from robopref.run import compose
from robopref.stages import single
from robopref.stages.collect import mixture, scripted
from robopref.stages.environments import environments
from robopref.types import Dims

ENV = ["env=point_mass", "task=point-mass", "workers=1", "episodes=8"]


def test_scripted_episodes_come_in_replicas_of_a_reset_with_distinct_noise(tmp_path):
    config = compose([*ENV, "rounds.replicas=4", "seed=3"])
    config["imperfections"] = {"good": {"noisy": {"action_noise": 0.1}}, "faulty": {}}
    single.collect(config, tmp_path / "store")
    made = TrajectoryStore(tmp_path / "store").load()
    assert [t.seed for t in made] == [30_000] * 4 + [30_001] * 4
    for group in (made[:4], made[4:]):
        assert all(np.array_equal(t.observation[0], group[0].observation[0]) for t in group)
        assert len({t.action.tobytes() for t in group}) == 4


def test_an_episode_without_replicas_is_the_first_of_several():
    env, kinds = compose(ENV)["env"], mixture({"noisy": {"action_noise": 0.1}}, 3)
    alone, again, replica = scripted(env, [5, 6, 6], kinds, 0, 1)
    first, second, third = scripted(env, [6, 6, 5], kinds, 0, 1)
    for one, other in ((alone, third), (again, first), (replica, second)):
        np.testing.assert_array_equal(one.action, other.action)


@pytest.mark.parametrize("acting", ["script", "policy"])
def test_recorded_states_bring_every_step_back(tmp_path, acting):
    config = compose([*ENV, "record_sim_state=true"])
    env = environments(config["env"], 1)[0]
    if acting == "policy":
        dims = Dims(env.observation_space.shape[0], env.action_space.shape[0])
        made = Diffusion(dims, horizon=4, execute=4, width=16, depth=1, diffusion_steps=5, sample_steps=2)
        config["checkpoint"] = str(save(made, tmp_path / "policy"))
    single.collect(config, tmp_path / "store")
    one = TrajectoryStore(tmp_path / "store").read(5)
    env.reset(seed=0)
    for step in (0, len(one) // 2, len(one) - 2):
        env.set_state(one.sim_state[step])
        observation, *_ = env.step(one.action[step])
        np.testing.assert_allclose(observation, one.observation[step + 1], atol=1e-6)


def test_without_the_key_no_state_is_stored(tmp_path):
    single.collect(compose(ENV), tmp_path / "store")
    assert TrajectoryStore(tmp_path / "store").read(0).sim_state is None
