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


def test_the_ridge_is_half_of_itself_times_the_squared_weights():
    free, held = Quadratic(Dims(3, 2), members=1, ridge=0.0), Quadratic(Dims(3, 2), members=1, ridge=0.4)
    held.load_state_dict(free.state_dict())
    first, second = episodes(seed=1), episodes(seed=2)
    batch = PreferenceBatch(first, second, torch.ones(12), torch.ones(12))
    weights = 20.0 * free.nets[0].weight
    assert_close(held.loss(batch)[0] - free.loss(batch)[0], 0.2 * weights.square().sum(), atol=1e-6, rtol=1e-4)


def test_settings_out_of_range_are_refused():
    with pytest.raises(InputError, match="late and ridge"):
        Quadratic(Dims(3, 2), late=-1.0)
