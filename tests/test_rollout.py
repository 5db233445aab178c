import numpy as np
import pytest
import torch
from robopref.envs.metaworld import MetaWorld
from robopref.envs.point_mass import PointMass

from robopref.arrays import InputError
from robopref.data.windows import chunk_table
from robopref.policies.best_of import BestOf, ImplicitReward
from robopref.policies.diffusion import Diffusion
from robopref.policies.gaussian import Gaussian
from robopref.rollout import episodes, rollout, with_log_prob
from robopref.types import Dims


@pytest.fixture(scope="module")
def policy():
    env = PointMass()
    torch.manual_seed(0)
    dims = Dims(env.observation_space.shape[0], env.action_space.shape[0])
    return Diffusion(dims, horizon=8, execute=5, history=2, width=64, depth=1, diffusion_steps=10, sample_steps=3)


class Toward(Diffusion):
    """Goes to the goal of the point mass, with noise of its own in every episode."""

    def act(self, observation, generator):
        way = 3 * (observation.state[:, -1, 4:6] - observation.state[:, -1, 0:2])
        noise = torch.stack([torch.randn(self.spec.horizon, 2, generator=one) for one in generator])
        return (way[:, None] + 0.5 * noise).clamp(-1, 1)


def run(policy, count, seeds, **options):
    return list(rollout(policy, [PointMass() for _ in range(count)], seeds, **options))


def test_results_do_not_depend_on_how_many_environments_run_side_by_side(policy):
    seeds = [3, 1, 1, 7, 9, 2, 4]
    one, two, eight = (run(policy, n, seeds) for n in (1, 2, 8))
    for a, b, c in zip(one, two, eight, strict=True):
        assert np.array_equal(a.action, b.action) and np.array_equal(a.action, c.action)
        assert np.array_equal(a.observation, c.observation) and a.seed == c.seed


def test_results_do_not_depend_on_the_number_of_threads():
    torch.manual_seed(0)
    policy = Diffusion(Dims(39, 4), execute=5, width=16, depth=1, diffusion_steps=10, sample_steps=2)
    environments = [MetaWorld("drawer-open", horizon=12) for _ in range(4)]
    seeds = [3, 1, 1, 7, 9, 2]
    one, three = (list(rollout(policy, environments, seeds, threads=n, sim_state=True)) for n in (1, 3))
    assert [t.seed for t in one] == seeds
    for a, b in zip(one, three, strict=True):
        for name in ("observation", "action", "reward", "success", "sim_state", "chunk", "executed"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_threads_change_nothing_where_a_step_has_one_part(policy):
    seeds = [3, 1, 1, 7, 9]
    one, two = (run(policy, 3, seeds, threads=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.action, b.action) and np.array_equal(a.reward, b.reward)


@pytest.mark.parametrize("repeat", [1, 3])
def test_a_step_is_its_two_parts(repeat):
    whole, parts = (MetaWorld("drawer-open", horizon=12, repeat=repeat) for _ in range(2))
    whole.reset(seed=5), parts.reset(seed=5)
    for action in np.random.default_rng(0).uniform(-1, 1, (4, 4)).astype(np.float32):
        parts.simulate(action)
        one, other = whole.step(action), parts.outcome()
        assert np.array_equal(one[0], other[0]) and one[1:] == other[1:]
    assert np.array_equal(whole.get_state(), parts.get_state())


def test_an_episode_that_ends_with_its_success_is_the_beginning_of_the_whole_one(policy):
    seeds = [3, 1, 1, 7, 9, 2, 4, 8, 6, 11, 12, 13]
    policy = Toward(**{**policy.config, "dims": policy.spec.dims})
    whole, until = (run(policy, 4, seeds, until_success=until) for until in (False, True))
    assert sum(t.succeeded for t in whole) > 0
    assert any(len(b) < len(a) for a, b in zip(whole, until, strict=True))
    for a, b in zip(whole, until, strict=True):
        assert len(b) == (int(np.argmax(a.success)) + 1 if a.succeeded else len(a))
        assert np.array_equal(a.action[: len(b)], b.action) and np.array_equal(a.success[: len(b)], b.success)


def test_an_error_in_a_thread_is_raised(policy, monkeypatch):
    monkeypatch.setattr(PointMass, "step", lambda *_: (_ for _ in ()).throw(InputError("a step that fails")))
    with pytest.raises(InputError, match="a step that fails"):
        run(policy, 2, [1, 2], threads=2)
    with pytest.raises(InputError, match="0 threads"):
        run(policy, 2, [1, 2], threads=0)


def test_trajectories_come_in_the_order_of_the_seeds(policy):
    assert [t.seed for t in run(policy, 3, [5, 2, 8, 2, 1])] == [5, 2, 8, 2, 1]


def test_runs_from_one_reset_share_the_start_and_differ_in_what_follows(policy):
    first, second = run(policy, 2, [4, 4])
    assert np.array_equal(first.observation[0], second.observation[0])
    assert not np.array_equal(first.action, second.action)


def test_the_executed_steps_of_the_chunks_are_the_actions(policy):
    (one,) = run(policy, 1, [4])
    at = np.flatnonzero(one.executed.any(axis=1))
    played = np.concatenate([one.chunk[t][one.executed[t]] for t in at])
    assert np.array_equal(played, one.action)
    assert (np.diff(at) == 5).all() and not one.executed[:, 5:].any()


def test_another_noise_seed_gives_other_actions(policy):
    assert not np.array_equal(run(policy, 1, [4])[0].action, run(policy, 1, [4], noise_seed=1)[0].action)


def test_repeated_seeds_are_replicas_of_one_reset():
    assert [(e.seed, e.replica) for e in episodes([5, 6, 5])] == [(5, 0), (6, 0), (5, 1)]


def test_a_policy_for_another_environment_is_refused():
    with pytest.raises(InputError, match="got one for observations"):
        run(Diffusion(Dims(3, 2), width=16, depth=1), 1, [0])


def test_an_expert_column_is_stored_on_request(policy):
    (one,) = run(policy, 1, [4], expert=True, sim_state=True)
    assert one.extra["expert_action"].shape == one.action.shape and one.sim_state.shape[0] == len(one)


def test_the_recorded_likelihood_sums_to_the_score_of_the_chunks():
    env = PointMass()
    torch.manual_seed(0)
    exact = Gaussian(Dims(env.observation_space.shape[0], env.action_space.shape[0]), horizon=8, execute=5, width=16)
    (one,) = run(exact, 1, [4])
    recorded = with_log_prob(exact, one).extra["log_prob"]
    chunks = chunk_table([one], exact.spec).chunks
    score = exact.score(chunks, exact.draw(chunks, torch.Generator().manual_seed(9)))
    assert recorded.shape == (len(one), 1)
    assert recorded[:5].sum() == pytest.approx(score[0].item(), rel=1e-5)
    assert recorded.sum() == pytest.approx(score.sum().item(), rel=1e-5)


def test_rollouts_of_a_reset_are_scored_at_the_same_draws(policy):
    one, two = run(policy, 2, [4, 4])
    assert np.array_equal(with_log_prob(policy, one).extra["log_prob"], with_log_prob(policy, one).extra["log_prob"])
    assert not np.array_equal(
        with_log_prob(policy, one).extra["log_prob"], with_log_prob(policy, two).extra["log_prob"]
    )
    with pytest.raises(InputError, match="only acts"):
        with_log_prob(BestOf(policy, ImplicitReward(policy, policy.reference()), 2), one)
