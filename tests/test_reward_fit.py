"""The common protocol of reward learners: cross-fitting, calibration, robustness, and requests that cannot be met."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref import statistics
from robopref.arrays import InputError
from robopref.learners.reward import FitSettings, calibrate, correct, fit_reward, probabilities, quality
from robopref.losses.pairwise import flipped, sigmoid
from robopref.rewards.gaussian import Gaussian
from robopref.rewards.gaussian_posterior import GaussianPosterior
from robopref.rewards.listwise import Listwise
from robopref.rewards.partial_return import PartialReturn
from robopref.rewards.regret import Regret
from robopref.rewards.transformer import Transformer
from robopref.types import Dims, PreferenceBatch, Segments

DIMS = Dims(observation=4, action=2)
FAST = FitSettings(steps=120, every=20)


def pairs(count=80, steps=10, seed=0, noise=0.3):
    """The better segment has the larger first state."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(2, count, generator=generator)
    observation = torch.randn(2, count, steps, 4, generator=generator) * noise
    observation[..., 0] += level[..., None]
    action, mask = torch.randn(2, count, steps, 2, generator=generator), torch.ones(2, count, steps)
    first, second = (Segments(observation[i], action[i], mask[i]) for i in range(2))
    return PreferenceBatch(first, second, (level[0] > level[1]).float(), torch.ones(count))


def fitted(model, batch, settings=FAST, **more):
    logs = list(fit_reward(model, batch, settings, torch.Generator().manual_seed(0), **more))
    return model, logs


def changed(batch, **parts):
    names = ("first", "second", "prob_first", "weight")
    return PreferenceBatch(**{n: parts.get(n, getattr(batch, n)) for n in names})


def test_flipped_without_flips_is_bradley_terry_and_with_them_forgives():
    first, second, prob = torch.randn(3, 9).sigmoid().unbind()
    assert_close(flipped(first, second, prob), sigmoid(first, second, prob))
    wrong = torch.tensor([20.0], requires_grad=True)
    flipped(wrong, torch.zeros(1), torch.zeros(1), flip=0.3).backward()
    assert wrong.grad.item() < 1e-6  # a confident score lets a contrary label go
    assert_close(flipped(torch.zeros(1), torch.zeros(1), torch.ones(1), flip=0.3), torch.tensor([math.log(2)]))


def test_a_small_variance_is_bradley_terry_and_a_large_one_knows_nothing():
    torch.manual_seed(0)
    model, batch = Gaussian(DIMS), pairs(6)
    with torch.no_grad():
        for net in model.nets:
            net[-1].weight[1].zero_()
            net[-1].bias[1].fill_(-50.0)
    difference, variance, _ = model.moments(batch.first, batch.second)
    assert variance.max() < 0.01
    assert_close(model.logits(batch.first, batch.second), difference, atol=1e-2, rtol=1e-2)
    returns = model.returns(batch.first) - model.returns(batch.second)
    assert_close(difference, returns)
    flat = torch.tensor(2.0) / (1 + math.pi / 8 * torch.tensor(1e12)).sqrt()
    assert flat.sigmoid() == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("variance", [1.0, 4.0, 16.0, 1000.0])
def test_the_closed_form_is_within_two_points_of_the_integral(variance):
    draw = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    for mean in (-4.0, -1.0, 0.5, 3.0):
        exact = (mean + math.sqrt(variance) * draw).sigmoid().mean()
        closed = torch.tensor(mean / math.sqrt(1 + math.pi / 8 * variance)).sigmoid()
        assert abs(exact - closed) < 0.02


@pytest.mark.parametrize("likelihood", ["sampled", "mean_ce"])
def test_sampled_likelihoods_agree_with_the_closed_form_where_the_variance_is_small(likelihood):
    torch.manual_seed(0)
    closed, batch = Gaussian(DIMS), pairs(12)
    other = Gaussian(DIMS, likelihood=likelihood, draws=64)
    other.load_state_dict(closed.state_dict())
    swapped = PreferenceBatch(batch.second, batch.first, 1 - batch.prob_first, batch.weight)
    assert_close(other.loss(batch)[0], other.loss(swapped)[0], atol=1e-5, rtol=1e-5)
    assert abs(other.loss(batch)[1]["reward/loss"] - closed.loss(batch)[1]["reward/loss"]) < 0.1


def test_the_floor_pushes_a_collapsing_variance_up():
    model, batch = Gaussian(DIMS, floor=0.0), pairs(6)
    loss, logs = model.loss(batch)
    assert logs["reward/entropy"] < 0 and float(loss.detach()) > logs["reward/loss"]
    loss.backward()
    assert all(net[-1].bias.grad[1] < 0 for net in model.nets)  # a step against it raises log sigma


def test_an_optimal_segment_has_no_regret():
    """With V(s) = the sum of rewards still to come, every advantage is 0, whatever the rewards."""
    model = Regret(DIMS, members=1, reduce="sum", temperature=1.0)
    reward = torch.tensor([0.5, -0.2, 0.9, 0.1])
    value = reward.flip(0).cumsum(0).flip(0)
    observation = torch.stack([value, reward, torch.zeros(4), torch.zeros(4)], dim=-1)[None]

    class First(torch.nn.Module):
        def forward(self, x):
            return x[..., :1]

    class Inverse(torch.nn.Module):
        def forward(self, x):
            return torch.atanh(x[..., 1:2])

    model.nets[0]["value"], model.nets[0]["reward"] = First(), Inverse()
    segments = Segments(observation, torch.zeros(1, 4, 2), torch.ones(1, 4))
    advantage = model.parts(segments)[2]
    assert_close(advantage[0, 0, :3], torch.zeros(3), atol=1e-6, rtol=0)
    # Summed over all but the last step: reward collected plus the value reached less the value at the start.
    assert_close(advantage.sum(), reward[-1], atol=1e-6, rtol=0)


def test_attention_weights_sum_to_one_and_look_both_ways_while_rewards_do_not():
    torch.manual_seed(0)
    model, batch = Transformer(DIMS), pairs(3)
    reward, weight = model.parts(batch.first)
    assert_close(weight.sum(-1), torch.ones(2, 3))
    late = Segments(batch.first.observation.clone(), batch.first.action, batch.first.mask)
    late.observation[:, -1] += 3
    other, moved = model.parts(late)
    assert_close(reward[..., :-1], other[..., :-1])
    assert (weight[..., 0] - moved[..., 0]).abs().max() > 1e-6
    plain = Transformer(DIMS, attention=False)
    assert_close(plain.returns(batch.first), plain.members(batch.first).mean(-1) / plain.temperature)
    with pytest.raises(InputError, match="at most 4"):
        Transformer(DIMS, longest=4).score(batch.first)


def test_the_linear_link_is_steep_between_bad_segments_and_flat_between_good_ones():
    logit = lambda one, two: math.log(1 + one) - math.log(1 + two)  # noqa: E731
    assert logit(-0.8, -0.9) > logit(0.9, 0.8)
    model, batch = Listwise(DIMS), pairs(4)
    utility = 1 + model.members(batch.first).mean(-1)
    other = 1 + model.members(batch.second).mean(-1)
    assert_close(model.logits(batch.first, batch.second).sigmoid(), utility / (utility + other))


def test_cross_fitting_keeps_a_part_from_each_member_and_stops_early():
    torch.manual_seed(0)
    settings = FitSettings(steps=400, every=10, patience=3)
    batch = pairs(60)
    labels = torch.randint(0, 2, (60,), generator=torch.Generator().manual_seed(1)).float()  # nothing to learn
    _, logs = fitted(PartialReturn(DIMS), changed(batch, prob_first=labels), settings)
    assert len(logs) < 400
    model, logs = fitted(PartialReturn(DIMS), batch, FitSettings(steps=120, every=20))
    assert (
        quality(probabilities(model, pairs(300, seed=2)), pairs(300, seed=2).prob_first.double().numpy())["accuracy"]
        > 0.9
    )


def test_groups_stay_together():
    from robopref.learners.reward import _folds

    groups = torch.arange(40) // 5
    fold = _folds(40, 4, groups, torch.Generator().manual_seed(0))
    assert all(len(fold[groups == g].unique()) == 1 for g in range(8)) and len(fold.unique()) == 4


def test_a_group_of_more_than_half_is_left_out_pair_by_pair_and_every_member_learns():
    from robopref.learners.reward import _folds

    giant = torch.cat([torch.zeros(30, dtype=torch.int64), torch.arange(1, 11)])
    for groups in (giant, torch.zeros(40, dtype=torch.int64)):
        assert torch.bincount(_folds(40, 4, groups, torch.Generator().manual_seed(0))).tolist() == [10] * 4
    torch.manual_seed(0)
    model, _ = fitted(PartialReturn(DIMS), pairs(60), groups=torch.zeros(60, dtype=torch.int64))
    fresh = pairs(200, seed=2)
    right = (model.logits(fresh.first, fresh.second) > 0) == (fresh.prob_first > 0.5)
    assert (right.float().mean(dim=1) > 0.9).all()


def test_an_undecided_prediction_is_half_right_whichever_side_was_preferred():
    for side in (0.0, 1.0):
        assert quality(np.full(4, 0.5), np.full(4, side))["accuracy"] == 0.5
    said = correct(np.array([[0.9, 0.2, 0.5, 0.7]]), np.array([1.0, 1.0, 0.0, 0.5]))
    assert said.tolist() == [[1.0, 0.0, 0.5, 0.5]]
    assert quality(np.array([0.9]), np.array([0.5]))["accuracy"] is None


@pytest.mark.parametrize("learner", [Gaussian, GaussianPosterior], ids=lambda c: c.__name__)
def test_flipped_labels_are_found_and_the_truth_is_predicted(learner):
    torch.manual_seed(0)
    batch = pairs(400)
    turned = torch.rand(400, generator=torch.Generator().manual_seed(3)) < 0.3
    noisy = changed(batch, prob_first=torch.where(turned, 1 - batch.prob_first, batch.prob_first))
    model, _ = fitted(learner(DIMS), noisy, FitSettings(steps=300))
    assert 0.2 < float(model.calibration.flip) < 0.4
    clean = pairs(600, seed=9)
    found = quality(probabilities(model, clean), clean.prob_first.double().numpy())
    assert found["accuracy"] > 0.9 and found["ece"] < 0.08
    honest, _ = fitted(learner(DIMS), batch)
    assert float(honest.calibration.flip) <= 0.05


def test_calibration_recovers_a_known_scale_and_share_of_flips():
    generator = torch.Generator().manual_seed(0)
    logit = 3 * torch.randn(20_000, generator=generator)
    label = (torch.rand(20_000, generator=generator) < (0.5 * logit).sigmoid()).float()
    turned = torch.rand(20_000, generator=generator) < 0.2
    model = Gaussian(DIMS)
    calibrate(model, logit, torch.where(turned, 1 - label, label), torch.ones(20_000))
    assert float(model.calibration.scale) == pytest.approx(0.5, rel=0.2)
    assert float(model.calibration.flip) == pytest.approx(0.2, abs=0.03)
    plain = PartialReturn(DIMS)
    calibrate(plain, logit, label, torch.ones(20_000))
    assert float(plain.calibration.flip) == 0 and float(plain.calibration.scale) == pytest.approx(0.5, rel=0.1)


def test_calibration_error_is_zero_for_honest_probabilities_and_large_for_loud_ones():
    rng = np.random.default_rng(0)
    prob = rng.random(50_000)
    outcome = (rng.random(50_000) < prob).astype(float)
    assert statistics.calibration_error(prob, outcome) < 0.01
    assert statistics.calibration_error(np.full(100, 0.99), np.full(100, 0.5)) == pytest.approx(0.49)
    assert sum(n for _, _, n in statistics.calibration_bins(prob, outcome)) == 50_000
    with pytest.raises(InputError, match="equal"):
        statistics.calibration_error(prob, outcome[:5])


def test_scores_are_centred_on_the_training_data():
    torch.manual_seed(0)
    model, _ = fitted(PartialReturn(DIMS), pairs(40))
    scores = torch.cat([model.score(pairs(40).first), model.score(pairs(40).second)])
    assert abs(float(scores.detach().mean())) < 1e-4


LEARNERS = [PartialReturn, Gaussian, GaussianPosterior, Regret, Transformer, Listwise]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("case", ["all ties", "one direction", "one pair", "constant features"])
def test_poor_data_trains_and_stays_finite(learner, case):
    torch.manual_seed(0)
    batch = pairs(1 if case == "one pair" else 24)
    if case == "all ties":
        batch = changed(batch, prob_first=torch.full((24,), 0.5))
    if case == "one direction":
        batch = changed(batch, prob_first=torch.ones(24))
    if case == "constant features":
        still = Segments(
            torch.ones_like(batch.first.observation), torch.zeros_like(batch.first.action), batch.first.mask
        )
        batch = changed(batch, first=still, second=still)
    model, _ = fitted(learner(DIMS), batch, FitSettings(steps=15, every=5))
    prob = probabilities(model, batch)
    assert np.isfinite(prob).all() and ((prob >= 0) & (prob <= 1)).all()
    assert model.score(batch.first).isfinite().all()
    if case == "constant features":
        np.testing.assert_allclose(prob, 0.5, atol=1e-6)


def test_impossible_requests_are_refused():
    batch = pairs(4)
    broken = Segments(batch.first.observation.clone(), batch.first.action, batch.first.mask)
    broken.observation[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        fitted(PartialReturn(DIMS), changed(batch, first=broken))
    with pytest.raises(InputError, match="at least one"):
        fitted(PartialReturn(DIMS), changed(batch, weight=torch.zeros(4)))
    for wrong in ({"steps": 0}, {"lr": 0.0}):
        with pytest.raises(InputError, match="FitSettings"):
            FitSettings(**wrong)
    for wrong in ({"likelihood": "exact"}, {"draws": 0}, {"temperature": 0.0}):
        with pytest.raises(InputError, match="Gaussian"):
            Gaussian(DIMS, **wrong)
