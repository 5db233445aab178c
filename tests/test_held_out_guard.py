"""The held-out guard: it stops a training whose winners fall, and the training ends with the last good weights."""

import math

import pytest
import torch
from small_alignment import LOOP, generator, settings, taught, trajectory

from robopref.checkpoint import load, save
from robopref.learners.align import PairTable, align, calibrate
from robopref.learners.guard import HeldOutGuard
from robopref.losses.pairwise import sigmoid
from robopref.stages.align import align_policy
from robopref.stages.ranking import Ranking


@pytest.fixture
def setting():
    return taught()


PLAIN = {"lr": 5e-3, "anchor": 0, "proximal": 0, "preference": 1, "kappa": 50}
"""Plain DPO at a rate at which it collapses: within twenty steps winners fall by 8 scales, losers by 40."""


def test_the_guard_rolls_back_when_winners_fall_while_accuracy_rises(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    scale = calibrate(reference, table, settings(), generator())
    guard = HeldOutGuard(policy, reference, table, pairs, scale, settings(), collapse=math.inf)
    healthy, checks = {}, []
    for _ in align(policy, reference, table, pairs, pairs.first, sigmoid, settings(steps=40, **PLAIN), generator()):
        before = {name: value.clone() for name, value in policy.state_dict().items()}
        go_on, found = guard.check()
        checks.append((go_on, found["guard/rho_winner"] < -guard.tolerance, found["guard/pair_accuracy"]))
        healthy = healthy if checks[-1][1] else before
        if not go_on:
            break
    assert [one for one, *_ in checks] == [True] * (len(checks) - 1) + [False] and len(checks) < 40
    assert [fell for _, fell, _ in checks[-guard.patience - 1 :]] == [False] + [True] * guard.patience, (
        "a patient guard"
    )
    assert checks[0][2] <= checks[-1][2] == 1, "accuracy alone would have praised it"
    for name, kept in healthy.items():
        assert torch.equal(policy.state_dict()[name], kept), "back at the last good weights"


@pytest.mark.parametrize(("collapse", "stops"), [(math.inf, False), (6.0, True)])
def test_winners_that_fall_with_accuracy_stop_a_training_by_their_depth_alone(setting, collapse, stops):
    policy, table, pairs = setting
    swapped = PairTable(pairs.second, pairs.first, pairs.prob_first, pairs.weight)
    reference = policy.reference()
    scale = calibrate(reference, table, settings(), generator())
    guard = HeldOutGuard(policy, reference, table, swapped, scale, settings(), collapse=collapse)
    list(align(policy, reference, table, swapped, swapped.first, sigmoid, settings(steps=4, **PLAIN), generator()))
    go_on, found = guard.check()
    assert go_on and found["guard/pair_accuracy"] > 0.8 and found["guard/rho_winner"] > -guard.tolerance
    list(
        align(policy, policy.reference(), table, pairs, pairs.first, sigmoid, settings(steps=40, **PLAIN), generator())
    )
    verdicts, found = [guard.check() for _ in range(guard.patience)], guard.measure()
    assert all(one["guard/pair_accuracy"] < 0.5 and one["guard/rho_winner"] < -6 for _, one in verdicts)
    assert [go_on for go_on, _ in verdicts] == [True] * (guard.patience - 1) + [not stops]


def test_a_training_that_ends_on_a_bad_check_ends_with_the_last_good_weights(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    guard = HeldOutGuard(
        policy, reference, table, pairs, calibrate(reference, table, settings(), generator()), settings()
    )
    assert guard.check()[0] and guard.finish() == (False, {})
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(5.0)
    assert guard.check()[0], "one bad check does not stop it"
    assert guard.finish() == (True, {}), "but the training must not end there"
    for mine, kept in zip(policy.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, kept)


@pytest.mark.parametrize("every", [100, 20])
def test_a_training_shorter_than_the_first_check_is_guarded_too(setting, tmp_path, every):
    policy, _, pairs = setting
    base = save(policy, tmp_path / "base")
    collapsing = vars(settings(steps=30, lr=5e-2, anchor=0, proximal=0, kappa=50))
    config = {
        "align": collapsing,
        "loss": {"_target_": "robopref.losses.pairwise.sigmoid", "_partial_": True},
        "seed": 0,
    }
    config["guard"], config["rounds"] = {"every": every}, {"guidance": 0.0}
    config |= LOOP
    ranking = Ranking(pairs.first, pairs, pairs)
    trajectories, logs = [trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)], []
    found, stopped = align_policy(config, base, trajectories, ranking, 1.0, tmp_path, logs, "aligned", 0)
    assert found["guard/rho_winner"] < -0.25 and "rolled back" in stopped
    measured = [row for row in logs if "guard/rho_winner" in row]
    assert measured[-1]["step"] == 30 and measured[-1]["guard/rho_winner"] == found["guard/rho_winner"]
    ended = zip(load(tmp_path / "policy").parameters(), policy.parameters(), strict=True)
    assert all(torch.equal(mine, before) for mine, before in ended)


def test_a_training_with_nothing_held_out_is_not_guarded(setting, tmp_path):
    policy, _, pairs = setting
    base, none = save(policy, tmp_path / "base"), PairTable(*(x[:0] for x in vars(pairs).values()))
    config = {
        "align": vars(settings(steps=3)),
        "loss": {"_target_": "robopref.losses.pairwise.sigmoid", "_partial_": True},
    }
    config |= {"seed": 0, "guard": {"every": 2}, "rounds": {"guidance": 0.0}, **LOOP}
    trajectories, logs = [trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)], []
    ranking = Ranking(pairs.first, pairs, none)
    assert align_policy(config, base, trajectories, ranking, 1.0, tmp_path, logs, "aligned", 0) == ({}, "")
    assert not any("guard/rho_winner" in row for row in logs)
