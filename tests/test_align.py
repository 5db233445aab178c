"""Trajectory-level DPO: its zero point, what it raises and lowers, its strength, and what it refuses."""

import math
from dataclasses import replace

import pytest
import torch
from small_alignment import generator, settings, taught

from robopref.arrays import InputError
from robopref.data.windows import ChunkTable
from robopref.learners.align import PairTable, align, calibrate, gather, relative_scores
from robopref.learners.unreferenced import unreferenced
from robopref.losses.pairwise import ZERO_POINT, ipo, sigmoid
from robopref.losses.reference_free import fkpd
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims


@pytest.fixture
def setting():
    return taught()


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
    rho = relative_scores(policy, reference, chunks, policy.draw(chunks, generator()), 1.0, table.count(pairs.first))
    assert rho.median() < 0


def test_rho_of_a_copy_is_exactly_zero(setting):
    policy, table, pairs = setting
    chunks = gather(table, pairs.first, 4, generator())
    draws = policy.draw(chunks, generator())
    assert (relative_scores(policy, policy.reference(), chunks, draws, 1.0, table.count(pairs.first)) == 0).all()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("other", [{}, {"width": 8}, {"diffusion_steps": 7}])
def test_prepared_draws_give_the_same_scores_and_losses_to_policy_and_reference(setting, prediction, other):
    _, table, pairs = setting
    small = {"horizon": 4, "execute": 4, "width": 16, "depth": 1, "diffusion_steps": 10, "sample_steps": 2}
    policy = Diffusion(Dims(3, 2), prediction=prediction, **small)
    reference = Diffusion(Dims(3, 2), prediction=prediction, **(small | other))  # other weights, too
    chunks = gather(table, pairs.first, 4, generator())
    draws = reference.draw(chunks, generator())
    ready = policy.prepared(chunks, draws)
    for head in (policy, reference):
        assert torch.equal(head.score(chunks, ready), head.score(chunks, draws))
        assert torch.equal(head.loss(chunks, ready), head.loss(chunks, draws))
    assert (reference._noised(chunks, ready) is ready.noised) == (not other), "one with other settings makes its own"


@pytest.mark.parametrize(
    "changes", [{}, {"trust": 0.3, "early": 2.0}, {"anchor": 0.0}, {"preference": 0.0, "proximal": 0.0}]
)
def test_how_many_steps_are_drawn_ahead_changes_nothing(setting, monkeypatch, changes):
    policy, table, pairs = setting
    start = {k: v.clone() for k, v in policy.state_dict().items()}
    found = []
    for ahead in (1, 3, 100):
        monkeypatch.setattr("robopref.learners.batches._AHEAD", ahead)
        policy.load_state_dict(start)
        random = generator()
        logs = list(
            align(policy, policy.reference(), table, pairs, pairs.first, sigmoid, settings(steps=8, **changes), random)
        )
        found.append((logs, [v.clone() for v in policy.parameters()], random.get_state()))
    for logs, weights, state in found[1:]:
        assert logs == found[0][0] and torch.equal(state, found[0][2])
        assert all(torch.equal(a, b) for a, b in zip(weights, found[0][1], strict=True))


def test_noise_is_added_as_the_scheduler_adds_it(setting):
    policy, table, pairs = setting
    chunks = gather(table, pairs.first, 4, generator())
    draws = policy.draw(chunks, generator())
    noised = policy._noised(chunks, draws)
    clean = policy.normalizer.action(chunks.action).repeat_interleave(policy.probes, dim=0)
    assert torch.equal(noised.noisy, policy.scheduler.add_noise(clean, draws.noise.flatten(0, 1), noised.time))


def test_length_normalisation_divides_by_the_executed_elements(setting):
    policy, table, pairs = setting
    reference = policy.reference()
    with torch.no_grad():
        next(policy.parameters()).add_(0.05)
    chunks = gather(table, pairs.first, 4, generator())
    draws, count = policy.draw(chunks, generator()), table.count(pairs.first)
    total, mean = (relative_scores(policy, reference, chunks, draws, eta, count) for eta in (0.0, 1.0))
    elements = chunks.mask.sum(dim=(1, 2)).view(10, -1).sum(dim=1) * count / 4
    torch.testing.assert_close(total, mean * elements)


def test_the_strength_is_read_from_the_data_and_repeats(setting):
    policy, table, _ = setting
    one, two = (calibrate(policy.reference(), table, settings(), generator()) for _ in range(2))
    assert one == two > 0


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


def test_a_one_sided_loss_never_pulls_a_beaten_loser_back_up():
    rho = torch.tensor([4.0, -4.0], requires_grad=True)
    for loss, pulls in ((sigmoid, False), (ipo, True)):
        (grad,) = torch.autograd.grad(loss(rho[:1], rho[1:], torch.ones(1)).sum(), rho)
        assert bool(grad[1] < 0) is pulls, (
            f"{loss.__name__}: descent raises the loser's score where the gradient is negative"
        )


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
