"""Lists of rollouts and single flagged episodes: the same alignment for every head, its zero point, and KTO's point of indifference."""

import copy
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from hydra.utils import instantiate
from small_alignment import generator, settings, trajectory

from robopref.arrays import InputError
from robopref.data.windows import chunk_table
from robopref.learners import sets
from robopref.learners.clone import clone, fit_normalizer
from robopref.learners.sets import FLAGGED, align_flags, align_lists, lists_of
from robopref.run import compose
from robopref.stages.ranking import rank
from robopref.stages.steps import LISTS
from robopref.types import Dims

HEADS = ["diffusion", "flow", "gaussian", "tokens"]
GROUP = torch.arange(20) // 4
GRADE = torch.tensor([0.0, 2.0, 1.0, 3.0]).repeat(5)
"""Odd trajectories act near 0.6 and are better: grades 2 and 3 of 0 to 3."""
FLAGS = torch.tensor([-1.0, 1.0]).repeat(10)
GOOD = torch.arange(1, 20, 2)
PLACED = sum(
    abs(2**a - 2**b) * abs(1 / math.log(5 - a) - 1 / math.log(5 - b)) * math.log(2) for a in range(4) for b in range(a)
)  # at equal scores the ranks are the ideal ones: grade g stands at place 4 - g
START = {
    "plackett_luce": math.log(24), "list_softmax": math.log(4), "lambda_rank": PLACED,
    "kto": 0.5, "bco": math.log(2), "apo_zero": 0.5, "d2o": math.log(2),
}  # fmt: skip


def taught(head):
    """A small policy of a head cloned from 20 episodes, and its table."""
    return copy.deepcopy(cloned(head))


@cache
def cloned(head):
    torch.manual_seed(0)
    preset = {**compose([f"policy={head}"])["policy"], "horizon": 4, "execute": 4, "width": 48, "depth": 1}
    policy = instantiate(preset, _partial_=True)(dims=Dims(3, 2))
    table = chunk_table([trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)], policy.spec)
    fit_normalizer(policy, table)
    for _ in clone(policy, table, steps=120, lr=2e-3, batch=32, generator=torch.Generator().manual_seed(0)):
        pass
    return policy, table


def learn(policy, table, name, own, reference=None, flags=FLAGS):
    reference = reference or policy.reference()
    if name in LISTS:
        lists = lists_of(GROUP, GRADE)
        return align_lists(policy, reference, table, lists, GOOD, LISTS[name], own, generator())
    return align_flags(policy, reference, table, flags, GOOD, name, own, generator())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", START)
def test_it_starts_at_its_zero_point_and_parts_good_from_bad(head, name):
    policy, table = taught(head)
    logs = list(learn(policy, table, name, settings(steps=40, anchor=0.3)))
    assert logs[0]["align/preference"] == pytest.approx(START[name], rel=1e-5)
    assert logs[0]["align/rho_winner"] == logs[0]["align/rho_loser"] == 0.0
    last = {k: sum(row[k] for row in logs[-10:]) / 10 for k in ("align/rho_winner", "align/rho_loser")}
    assert last["align/rho_winner"] > last["align/rho_loser"] and last["align/rho_loser"] < 0


def test_every_learner_of_the_configuration_is_known():
    from robopref.ranges import CHOICES
    from robopref.ranges import LISTS as NAMED

    assert set(NAMED) == set(LISTS) and set(START) == {*LISTS, *FLAGGED} < set(CHOICES["learner"])


def test_kto_s_baseline_is_the_mean_of_chunks_set_against_other_trajectories(monkeypatch):
    policy, table = taught("gaussian")
    seen, compare = [], sets.relative_scores

    def spy(mine, theirs, chunks, draws, *rest):
        found = compare(mine, theirs, chunks, draws, *rest)
        seen.append((chunks, found))
        return found

    monkeypatch.setattr(sets, "relative_scores", spy)
    reference = policy.reference()
    with torch.no_grad():
        next(policy.network.parameters()).add_(0.05)
    own = settings(chunks_per_trajectory=3)
    rho, strange = sets._rho(policy, reference, table, torch.arange(4), own, generator(), mismatch=True)
    (chunks, one), (other, two) = seen
    assert torch.equal(rho, one) and torch.equal(strange, two) and not strange.requires_grad and rho.requires_grad
    assert torch.equal(other.action, chunks.action) and torch.equal(other.mask, chunks.mask)
    state = chunks.observation.state.unflatten(0, (4, 3))
    assert torch.equal(other.observation.state.unflatten(0, (4, 3)), state[[3, 0, 1, 2]])
    asked = []
    monkeypatch.setattr(sets.unpaired, "kto_baseline", lambda r: asked.append(r) or r.mean().clamp(min=0))
    next(align_flags(policy, policy.reference(), table, FLAGS, GOOD, "kto", own, generator()))
    assert len(asked) == 1 and len(asked[0]) == 2 * own.pairs_per_step


def test_bco_s_shift_is_the_mean_of_all_rewards_so_far():
    judge = sets._flagged("bco")
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([-2.0, 0.0])
    none = torch.zeros(0)
    assert judge(first, second, none)[0].item() == pytest.approx(math.log1p(math.exp(-(1 - 0.5))))
    later = judge(first + 4, second, none)[0]  # mean of 2 and 10 over eight rewards
    assert later.item() == pytest.approx(math.log1p(math.exp(-(5 - 1.5))))


def test_lists_are_padded_and_those_that_say_nothing_left_out():
    group, grade = torch.tensor([0, 0, 0, 1, 1, 2, 2, -1, 3]), torch.tensor([0.0, 2, 1, 1, 1, 0, 4, 9, 1])
    lists = lists_of(group, grade)
    assert lists.members.tolist() == [[0, 1, 2], [5, 6, 5]] and lists.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert lists.grade.tolist() == [[0, 2, 1], [0, 4, 0]]
    with pytest.raises(InputError, match=r"two grades, wanted some[\s\S]*rounds\.replicas"):
        lists_of(group, torch.zeros(9))
    with pytest.raises(InputError, match=r"ListTable\.mask"):
        replace(lists, mask=torch.ones(2, 2))


def test_a_ranking_grades_rollouts_of_a_reset_in_deviations_and_leaves_out_what_watches():
    predicted = np_array = torch.tensor([5.0, -5, 4.9, -4, 3, -3, 2, -2]).numpy()
    seeds, rounds = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]).numpy(), torch.zeros(8, dtype=torch.int64).numpy()
    ranking = rank(predicted, seeds, rounds, top=0.25, held_out=0.34, seed=0)
    watched = {*ranking.held_out.first.tolist()}
    unit = np_array.std()
    for index, (group, grade) in enumerate(zip(ranking.group.tolist(), ranking.grade.tolist(), strict=True)):
        mates = [i for i in range(8) if seeds[i] == seeds[index]]
        if watched & set(mates):
            assert group == -1
        else:
            assert grade == min(5, int((predicted[index] - min(predicted[mates])) / unit))
            assert {i for i in range(8) if ranking.group[i] == group} == set(mates)


def test_rollouts_of_a_reset_that_are_nearly_alike_are_graded_by_their_places():
    predicted = torch.tensor([0.0, 0.2, 0.1, 50.0, 50.1, 50.2]).numpy()
    seeds, rounds = torch.tensor([0, 0, 0, 1, 1, 1]).numpy(), torch.zeros(6, dtype=torch.int64).numpy()
    ranking = rank(predicted, seeds, rounds, top=0.3, held_out=0.1, seed=0)
    (kept,) = {int(one) for one in ranking.group if one >= 0}
    grades = {index: int(grade) for index, grade in enumerate(ranking.grade.tolist()) if ranking.group[index] == kept}
    assert grades in ({0: 0, 2: 1, 1: 2}, {3: 0, 4: 1, 5: 2}) and len(lists_of(ranking.group, ranking.grade)) == 1


@pytest.mark.parametrize(
    ("name", "flags", "said"),
    [("kto", FLAGS.abs(), "0 bad"), ("bco", -FLAGS.abs(), "0 good"), ("dpo", FLAGS, "wanted one of kto"), ("kto", FLAGS[:7], "flags.indicator")],
)  # fmt: skip
def test_flags_that_teach_nothing_are_refused(name, flags, said):
    policy, table = taught("gaussian")
    with pytest.raises(InputError, match=said):
        next(learn(policy, table, name, settings(), flags=flags))


def test_a_reference_that_is_not_the_policy_is_refused():
    policy, table = taught("gaussian")
    other = policy.reference()
    with torch.no_grad():
        next(other.network.parameters()).add_(0.1)
    for name in ("kto", "plackett_luce"):
        with pytest.raises(InputError, match="exactly"):
            next(learn(policy, table, name, settings(), reference=other))
