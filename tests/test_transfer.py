"""Transport between tasks: identities of plans and carried labels, no leak of the target's rewards, and step rewards of segments."""

import numpy as np
import pytest

from robopref.arrays import InputError, Trajectory
from robopref.labelers.insertion import rank_by_insertion
from robopref.labelers.transfer import Source, Transfer
from robopref.transport import distances, sinkhorn
from robopref.transport.gromov import carried, couple, smoothed


def cloud(count=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2)) * [3.0, 1.0] + np.arange(count)[:, None] ** 1.5 * 0.1


def order(values):
    return np.sign(np.subtract.outer(values, values))


def test_a_shuffled_rotated_copy_costs_nothing_and_is_recognised():
    points, shuffle = cloud(), np.random.default_rng(1).permutation(12)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    copy = (points @ turn)[shuffle]
    found = couple(distances.pairwise(points), distances.pairwise(copy), starts=8)
    assert found.cost == pytest.approx(0, abs=1e-6)
    assert (found.plan.argmax(axis=0) == shuffle).all()
    np.testing.assert_allclose(found.plan.sum(axis=0), 1 / 12, atol=1e-9)
    np.testing.assert_allclose(found.plan.sum(axis=1), 1 / 12, atol=1e-9)


def test_a_label_of_one_under_a_perfect_match_gives_one():
    """The published z = T_j^T Z T_j' gives 1 / N^2 here."""
    relation, plan = order(np.arange(5.0)), np.eye(5) / 5
    np.testing.assert_allclose(carried(smoothed(plan, np.ones((5, 5)) - np.eye(5), 0), relation), relation)
    assert (plan.T @ np.maximum(relation, 0) @ plan).max() == pytest.approx(1 / 25)


def test_carried_labels_are_antisymmetric_and_bounded():
    rng = np.random.default_rng(0)
    mass = rng.random((7, 9))
    mass /= mass.sum(axis=0)
    moved = carried(mass, order(rng.normal(size=7)))
    np.testing.assert_allclose(moved, -moved.T)
    assert np.abs(moved).max() <= 1
    with pytest.raises(InputError, match="antisymmetric"):
        carried(mass, np.ones((7, 7)))


def test_gaps_in_the_labels_are_divided_out():
    relation = order(np.arange(6.0))
    known = np.ones((6, 6))
    known[0, 5] = known[5, 0] = 0
    gone = np.where(known > 0, relation, 0)
    moved = carried(np.full((6, 2), 1 / 6), gone, known)
    assert moved == pytest.approx(0)
    assert carried(np.eye(6), gone, known)[1, 2] == -1


def test_a_plan_that_says_nothing_makes_no_confident_label():
    still = [episode(np.zeros((20, 3)), seed) for seed in range(4)]
    fitted = Transfer(fused=0.0).fit([Source(still, 0.5 + 0.5 * order(np.arange(4.0)))], still)
    assert not np.isfinite(fitted.least()) or np.abs(fitted.fitted.relation).max() >= 1e-6


def episode(way, seed=0, reward=0.0, task="a"):
    """A Meta-World-shaped episode whose object moves along `way` (T, 3) to a goal at (1, 0, 0)."""
    observation = np.zeros((len(way), 39), np.float32)
    observation[:, 4:7], observation[:, 36] = way, 1
    observation[:, 0:3] = way - 0.05
    rng = np.random.default_rng(seed)
    zeros = np.zeros(len(way), np.float32)
    return Trajectory(
        observation, rng.normal(size=(len(way), 4)).astype(np.float32), zeros + reward, zeros > 1, task, seed
    )


def task(scale, count=24, seed=0, name="a"):
    """Episodes that get a share of the way to the goal; the share is the return."""
    shares = np.random.default_rng(seed).random(count)
    way = np.linspace(0, 1, 40)[:, None] * np.array([[1.0, 0, 0]])
    made = [episode(np.minimum(way, share), seed=int(1e3 * share), reward=share, task=name) for share in shares]
    return made, shares


def test_labels_reach_another_task_and_only_the_sources_are_read():
    (theirs, shares), (ours, truth) = task(1.0), task(1.0, seed=1, name="b")
    fitted = Transfer().fit([Source(theirs, 0.5 + 0.5 * order(shares))], ours)
    i, j = np.triu_indices(len(ours), 1)
    answers = fitted.label([ours[a] for a in i], [ours[b] for b in j])
    assert ((answers > 0.5) == (truth[i] > truth[j])).mean() > 0.9
    # The same episodes with other rewards: the answers are the same numbers.
    lying = [Trajectory(t.observation, t.action, -t.reward, ~t.success, t.task, t.seed) for t in ours]
    again = Transfer().fit([Source(theirs, 0.5 + 0.5 * order(shares))], lying)
    np.testing.assert_array_equal(fitted.fitted.relation, again.fitted.relation)


def test_abstention_keeps_the_surest_share():
    (theirs, shares), (ours, _) = task(1.0), task(1.0, seed=1)
    half = Transfer(coverage=0.5).fit([Source(theirs, 0.5 + 0.5 * order(shares))], ours)
    i, j = np.triu_indices(len(ours), 1)
    answers = half.label([ours[a] for a in i], [ours[b] for b in j])
    assert np.isnan(answers).mean() == pytest.approx(0.5, abs=0.05)
    sure = Transfer(threshold=0.999).fit([Source(theirs, 0.5 + 0.5 * order(shares))], ours)
    assert np.isnan(sure.label([ours[0]], [ours[1]])).all()


def test_several_sources_add_up_and_agreement_is_reported():
    (one, a), (two, b), (ours, truth) = task(1.0), task(1.0, seed=5), task(1.0, seed=1)
    fitted = Transfer().fit([Source(one, 0.5 + 0.5 * order(a)), Source(two, 0.5 + 0.5 * order(b), weight=2.0)], ours)
    assert len(fitted.fitted.couplings) == 2 and fitted.fitted.agreement.mean() > 0.8
    assert (np.sign(fitted.fitted.relation) == order(truth)).mean() > 0.8


def test_impossible_transfers_are_refused():
    (theirs, shares), (ours, _) = task(1.0), task(1.0, seed=1)
    source = Source(theirs, 0.5 + 0.5 * order(shares))
    short = [t.window(0, 15) for t in ours]
    with pytest.raises(InputError, match="width"):
        Transfer().fit([source], short)
    narrow = [Trajectory(t.observation[:, :7], t.action, t.reward, t.success) for t in ours]
    with pytest.raises(InputError, match="width 7"):
        Transfer().fit([source], narrow)
    with pytest.raises(InputError, match="before `fit`"):
        Transfer().label(ours, ours)
    fitted = Transfer().fit([source], ours)
    with pytest.raises(InputError, match="not fitted on"):
        fitted.label(theirs[:1], ours[:1])
    with pytest.raises(InputError, match="no label"):
        Source(theirs, np.full((24, 24), np.nan)).relation()
    with pytest.raises(InputError, match=r"shape \(3, 3\)"):
        Source(theirs, np.zeros((3, 3))).relation()
    with pytest.raises(InputError, match="coverage"):
        Transfer(coverage=0.0)
    with pytest.raises(InputError, match="wanted one of closeness, relative, raw"):
        Transfer(features="magic").fit([source], ours)


def test_step_rewards_sum_to_minus_the_transport_cost_and_favour_what_the_example_did():
    example = np.linspace(0, 1, 30)[:, None]
    same, other = sinkhorn.step_rewards(example, example), sinkhorn.step_rewards(example + 2, example)
    assert (same <= 0).all() and same.sum() > other.sum()
    cost = np.abs(example + 2 - example.T)
    assert sinkhorn.step_rewards(example + 2, example).sum() == pytest.approx(-(sinkhorn.plan(cost) * cost).sum())
    lost = example.copy()
    lost[20:] = 3.0
    steps = sinkhorn.step_rewards(lost, example)
    assert steps[20:].mean() < steps[:15].mean()
    plan = sinkhorn.plan(cost)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 30, atol=1e-4)
    for bad in (np.full((3, 3), np.nan), np.zeros((0, 3))):
        with pytest.raises(InputError, match="plan"):
            sinkhorn.plan(bad)
    with pytest.raises(InputError, match="one width"):
        sinkhorn.step_rewards(example, np.zeros((4, 2)))
    assert sinkhorn.step_rewards(np.ones((5, 2)), np.ones((4, 2))).tolist() == [0.0] * 5


def test_insertion_ranks_with_few_questions_and_counts_them():
    quality, rng = np.array([3, 1, 2, 2, 0, 5, 4, 3]), np.random.default_rng(0)
    asked = []

    def answer(a, b):
        asked.append((a, b))
        return 0.5 + 0.5 * float(np.sign(quality[a] - quality[b]))

    made = rank_by_insertion(list(range(8)), answer, 100, rng)
    assert [sorted(g) for g in made.groups] == [[4], [1], [2, 3], [0, 7], [6], [5]]
    assert made.asked == len(asked) < 8 * 7 / 2
    pairs = made.pairs()
    assert len(pairs) == 28 and all(p == 0.5 + 0.5 * np.sign(quality[a] - quality[b]) for a, b, p in pairs)
    cut = rank_by_insertion(list(range(8)), answer, 4, rng)
    assert cut.asked == 4 and sum(map(len, cut.groups)) < 8
    with pytest.raises(InputError, match="budget"):
        rank_by_insertion([1], answer, 0, rng)
