import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.windows import ChunkTable, chunk_table
from robopref.learners.align import AlignSettings, PairTable, align, calibrate, gather, relative_scores
from robopref.learners.clone import clone, fit_normalizer
from robopref.learners.guard import HeldOutGuard
from robopref.learners.unreferenced import unreferenced
from robopref.losses.pairwise import ZERO_POINT, ipo, sigmoid
from robopref.losses.reference_free import fkpd
from robopref.policies.diffusion import Diffusion
from robopref.stages.align import align_policy
from robopref.stages.ranking import Ranking
from robopref.types import Dims

DIMS = Dims(3, 2)
LOOP = {
    "learner": "align", "objectives": {"weights": [1.0], "others": []}, "best_of": {"candidates": 1}, "lora": {"rank": 0},
}  # fmt: skip


def trajectory(level, seed, steps=24):
    """Actions near `level`; higher is 'better'."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(steps, 3)).astype(np.float32)
    action = np.clip(level + 0.1 * rng.normal(size=(steps, 2)), -1, 1).astype(np.float32)
    return Trajectory(observation, action, np.full(steps, level, np.float32), np.full(steps, level > 0))


@pytest.fixture
def setting():
    torch.manual_seed(0)
    trajectories = [trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)]
    policy = Diffusion(DIMS, horizon=4, execute=4, width=48, depth=1, diffusion_steps=20, sample_steps=4)
    table = chunk_table(trajectories, policy.spec)
    fit_normalizer(policy, table)
    generator = torch.Generator().manual_seed(0)
    for _ in clone(policy, table, steps=150, lr=2e-3, batch=32, generator=generator):
        pass
    first, second = torch.arange(1, 20, 2), torch.arange(0, 20, 2)
    return policy, table, PairTable(first, second, torch.ones(10), torch.ones(10))


def settings(**changes):
    return AlignSettings(
        **{"steps": 40, "lr": 1e-3, "pairs_per_step": 6, "chunks_per_trajectory": 4, "anchor_chunks": 16, **changes}
    )


def generator():
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("loss", [sigmoid, ipo])
def test_before_the_first_step_the_loss_is_exactly_at_its_zero_point(setting, loss):
    policy, table, pairs = setting
    logs = next(
        align(policy, policy.reference(), table, pairs, pairs.first, loss, settings(anchor=0, proximal=0), generator())
    )
    assert logs["align/preference"] == pytest.approx(ZERO_POINT[loss.__name__], abs=1e-6)
    assert logs["align/rho_winner"] == 0.0 and logs["align/rho_loser"] == 0.0


def test_alignment_raises_winners_and_lowers_losers(setting):
    policy, table, pairs = setting
    logs = list(align(policy, policy.reference(), table, pairs, pairs.first, ipo, settings(), generator()))[-1]
    assert logs["align/rho_winner"] > 0 > logs["align/rho_loser"]
    assert logs["align/pair_accuracy"] == 1.0


def test_swapped_labels_lower_what_used_to_win(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    swapped = PairTable(pairs.first, pairs.second, 1 - pairs.prob_first, pairs.weight)
    list(align(policy, reference, table, swapped, pairs.second, ipo, settings(), generator()))
    chunks = gather(table, pairs.first, 4, generator())
    rho = relative_scores(
        policy, reference, chunks, policy.draw(chunks, generator()), 10, 1.0, table.count(pairs.first)
    )
    assert rho.median() < 0


def test_rho_of_a_copy_is_exactly_zero(setting):
    policy, table, pairs = setting
    chunks = gather(table, pairs.first, 4, generator())
    draws = policy.draw(chunks, generator())
    assert (relative_scores(policy, policy.reference(), chunks, draws, 10, 1.0, table.count(pairs.first)) == 0).all()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("other", [{}, {"width": 8}, {"diffusion_steps": 7}])
def test_scores_beside_a_reference_are_the_scores_of_each_by_itself(setting, prediction, other):
    _, table, pairs = setting
    small = {"horizon": 4, "execute": 4, "width": 16, "depth": 1, "diffusion_steps": 10, "sample_steps": 2}
    policy = Diffusion(Dims(3, 2), prediction=prediction, **small)
    reference = Diffusion(Dims(3, 2), prediction=prediction, **(small | other))  # other weights, too
    chunks = gather(table, pairs.first, 4, generator())
    draws = reference.draw(chunks, generator())
    mine, theirs = policy.score_beside(reference, chunks, draws)
    assert torch.equal(mine, policy.score(chunks, draws)) and torch.equal(theirs, reference.score(chunks, draws))
    assert mine.requires_grad and not theirs.requires_grad


def test_noise_is_added_as_the_scheduler_adds_it(setting):
    policy, table, pairs = setting
    chunks = gather(table, pairs.first, 4, generator())
    draws = policy.draw(chunks, generator())
    (noisy, time, _), _ = policy._noised(chunks, draws)
    clean = policy.normalizer.action(chunks.action).repeat_interleave(policy.probes, dim=0)
    assert torch.equal(noisy, policy.scheduler.add_noise(clean, draws.noise.flatten(0, 1), time))


def test_length_normalisation_divides_by_the_executed_elements(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    with torch.no_grad():
        next(policy.parameters()).add_(0.05)
    chunks = gather(table, pairs.first, 4, generator())
    draws, count = policy.draw(chunks, generator()), table.count(pairs.first)
    total, mean = (relative_scores(policy, reference, chunks, draws, 10, eta, count) for eta in (0.0, 1.0))
    elements = chunks.mask.sum(dim=(1, 2)).view(10, -1).sum(dim=1) * count / 4
    torch.testing.assert_close(total, mean * elements)


def test_the_strength_is_read_from_the_data_and_repeats(setting):
    policy, table, _ = setting
    one, two = (calibrate(policy.reference(), table, settings(), generator()) for _ in range(2))
    assert one == two > 0


def test_the_guard_rolls_back_when_winners_fall_while_accuracy_rises(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    scale = calibrate(reference, table, settings(), generator())
    guard = HeldOutGuard(policy, reference, table, pairs, scale, settings())
    assert guard.check()[0], "an unchanged policy goes on"
    plain = settings(steps=400, lr=5e-3, anchor=0, proximal=0, preference=1, kappa=50)
    assert len(list(align(policy, reference, table, pairs, pairs.first, sigmoid, plain, generator()))) == 400
    found = guard.measure()
    if found["guard/rho_winner"] >= -guard.tolerance:  # push the collapse if this network resisted it
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(5.0)
        guard._accuracy = 0.0
    verdicts = [guard.check()[0] for _ in range(guard.patience - 1)]
    assert all(verdicts), "one shaken check is no collapse"
    go_on, found = guard.check()
    assert not go_on and found["guard/rho_winner"] < 0
    for mine, kept in zip(policy.parameters(), reference.parameters(), strict=True):
        assert torch.equal(mine, kept)


def test_without_an_answered_pair_alignment_says_what_to_do(setting):
    policy, table, _ = setting
    empty = PairTable(*(torch.zeros(0, dtype=t) for t in (torch.int64, torch.int64, torch.float32, torch.float32)))
    with pytest.raises(InputError, match="Label more pairs"):
        next(
            align(
                policy,
                policy.reference(),
                table,
                empty,
                torch.zeros(1, dtype=torch.int64),
                ipo,
                settings(),
                generator(),
            )
        )


@pytest.mark.parametrize("change", [{"steps": 0}, {"kappa": 0.0}, {"anchor": -1.0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(InputError):
        settings(**change)


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


def test_a_one_sided_loss_never_pulls_a_beaten_loser_back_up():
    rho = torch.tensor([4.0, -4.0], requires_grad=True)
    for loss, pulls in ((sigmoid, False), (ipo, True)):
        (grad,) = torch.autograd.grad(loss(rho[:1], rho[1:], torch.ones(1)).sum(), rho)
        assert bool(grad[1] < 0) is pulls, (
            f"{loss.__name__}: descent raises the loser's score where the gradient is negative"
        )


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


def test_early_chunks_are_drawn_as_often_as_their_density_says(setting):
    _, table, _ = setting
    every = torch.arange(len(table)).repeat(200)
    rows = table.sample(every, 4, generator(), early=2.0)
    position = (rows - table.start[every][:, None]) / table.count(every)[:, None]
    assert position.min() >= 0 and position.max() < 1
    count = int(table.count(every)[0])
    edges = torch.arange(count + 1) / count
    cumulated = (1 - torch.exp(-2.0 * edges)) / (1 - math.exp(-2.0))
    wanted = (cumulated[1:] - cumulated[:-1]) @ edges[:-1]
    assert position.mean().item() == pytest.approx(wanted.item(), abs=0.01)
    alike = table.sample(every, 4, generator(), early=1e-6)
    assert (alike == table.sample(every, 4, generator())).float().mean() > 0.999


def test_without_a_reference_winners_come_to_fit_better_than_losers(setting):
    policy, table, pairs = setting
    logs = list(
        unreferenced(policy, table, pairs, lambda *x: fkpd(*x, strength=5.0, hold=0.1), settings(), generator())
    )
    assert logs[-1]["align/error_winner"] < logs[-1]["align/error_loser"] and logs[-1]["align/pair_accuracy"] == 1.0
    held = list(unreferenced(policy, table, pairs, lambda *x: 0 * x[0] + x[3], settings(steps=3), generator()))
    assert all(row["align/loss"] > 0 for row in held), "a loss sees the errors on all data as its fourth argument"


def test_pairs_of_what_never_ran_are_refused(setting):
    policy, table, pairs = setting
    empty = replace(table.chunks, mask=table.chunks.mask.clone())
    empty.mask[table.start[3] : table.start[4]] = 0
    with pytest.raises(InputError, match=r"empty mask.*trajectory 3"):
        next(
            align(
                policy,
                policy.reference(),
                ChunkTable(empty, table.start),
                pairs,
                pairs.first,
                ipo,
                settings(),
                generator(),
            )
        )
    beyond = PairTable(pairs.first + 10, pairs.second, pairs.prob_first, pairs.weight)
    with pytest.raises(InputError, match="trajectory 29 of 20"):
        next(align(policy, policy.reference(), table, beyond, pairs.first, ipo, settings(), generator()))


def test_a_reference_with_another_normaliser_is_refused(setting):
    policy, table, pairs = setting
    other = policy.reference()
    other.normalizer.mean.add_(1)
    with pytest.raises(InputError, match="another normaliser"):
        next(align(policy, other, table, pairs, pairs.first, ipo, settings(), generator()))


def test_a_lead_of_further_objectives_moves_the_zero_point(setting):
    policy, table, pairs = setting
    ahead = replace(pairs, lead=torch.full((10,), 2.0))
    logs = next(
        align(
            policy, policy.reference(), table, ahead, pairs.first, sigmoid, settings(anchor=0, proximal=0), generator()
        )
    )
    assert logs["align/preference"] == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)
