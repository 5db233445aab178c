"""The quadratic reward is logistic regression on late-weighted means, and wrong answers bend it less than they bend a network."""

import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.rewards.quadratic import Quadratic
from robopref.types import Dims, PreferenceBatch, Segments


def episodes(count=12, steps=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Segments(
        torch.randn(count, steps, 3, generator=generator), torch.zeros(count, steps, 2), torch.ones(count, steps)
    )


def test_features_of_prepared_episodes_have_unit_deviation_and_a_constant_one_counts_nothing():
    model, seen = Quadratic(Dims(3, 2)), episodes()
    seen.observation[..., 2] = 0.7
    model.prepare(seen)
    mean = (model._mean(model._features(seen), seen.mask) - model.middle) / model.spread
    moving = [0, 1, 3, 4]
    assert_close(mean.std(dim=0, correction=0)[moving], torch.ones(4))
    assert_close(mean[:, [2, 5]], torch.zeros(12, 2), atol=1e-5, rtol=0)


def test_a_return_is_the_weighted_mean_of_scores_and_late_steps_weigh_more():
    seen = episodes()
    for late in (0.0, 5.0):
        model = Quadratic(Dims(3, 2), late=late)
        weight = torch.exp(late * torch.arange(9) / 9)
        expected = (model.score(seen) * weight / weight.sum()).sum(dim=1)
        assert_close(model.returns(seen).mean(dim=0), expected)


def test_the_prior_is_half_the_squared_weights_in_its_deviations_shared_by_all_pairs():
    free, held = Quadratic(Dims(3, 2), members=1, prior=1e6), Quadratic(Dims(3, 2), members=1, prior=2.0)
    held.load_state_dict(free.state_dict())
    batch = PreferenceBatch(episodes(seed=1), episodes(seed=2), torch.ones(12), torch.ones(12))
    weights = 20.0 * free.nets[0].weight
    assert_close(
        held.loss(batch)[0] - free.loss(batch)[0], (weights / 2.0).square().sum() / 2 / 12, atol=1e-6, rtol=1e-4
    )


def rater(count=60, seed=0, flips=0.0):
    """Episodes whose last steps say whether they succeed, and a success teacher's answers: two failures or two successes tie."""
    generator = torch.Generator().manual_seed(seed)
    seen = episodes(128, seed=seed)
    good = torch.rand(128, generator=generator) < 0.4
    seen.observation[:, -3:, 0] += torch.where(good, 1.5, -1.5)[:, None]
    first, second = (torch.randint(128, (count,), generator=generator) for _ in range(2))
    prob = 0.5 + 0.5 * (good[first].float() - good[second].float())
    turned = torch.rand(count, generator=generator) < flips
    prob = torch.where(turned, 1 - prob, prob)
    return seen, good, PreferenceBatch(seen[first], seen[second], prob, torch.ones(count))


def solved(seen, batch, **settings):
    model = Quadratic(Dims(3, 2), **settings)
    live = seen.mask.bool()
    model.normalizer.fit(seen.observation[live], seen.action[live])
    model.prepare(seen)
    return model, model.solve(batch)


def right(model, seen, good):
    value = model.returns(seen).mean(dim=0).detach()
    return (value[good][:, None] > value[~good]).float().mean()


def test_ties_keep_the_ranking_when_a_third_of_the_answers_is_turned_round():
    for seed in range(3):
        seen, good, batch = rater(seed=seed, flips=0.3)
        model, logs = solved(seen, batch)
        assert right(model, seen, good) > 0.93 and logs["reward/loss"] > 0
        assert model.uncertainty(seen).max() > 0  # members leave different answers out


def test_the_solution_is_a_mode_of_what_loss_says():
    seen, _, batch = rater(flips=0.1)
    model, _ = solved(seen, batch, members=1)
    best = model.loss(batch)[0]
    best.backward()
    assert model.nets[0].weight.grad.abs().max() < 1e-2  # per weight divided by 20
    with torch.no_grad():
        for scale in (0.9, 1.1):
            other = Quadratic(Dims(3, 2), members=1)
            other.load_state_dict(model.state_dict())
            other.nets[0].weight.mul_(scale)
            assert other.loss(batch)[0] > best


def test_without_ties_nothing_is_read_from_answers_being_decided():
    seen, _, batch = rater()
    decided = batch[batch.prob_first != 0.5]
    model, _ = solved(seen, decided)
    assert_close(model.level, torch.zeros(4))


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="prior"):
        Quadratic(Dims(3, 2), prior=0.0)
