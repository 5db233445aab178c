"""Draws of the Gaussian reward: what nobody answered follows the prior, flips are found, and distances are learned where there are any."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.learners.reward import FitSettings, fit_reward, probabilities, quality
from robopref.networks.slice_sampling import Answers, Prior, draw
from robopref.rewards.gaussian_posterior import GaussianPosterior
from robopref.types import Dims, PreferenceBatch, Segments


def answers(count=300, flips=0.0, weight=1.0, seed=0):
    """Pairs whose first is better where the first of three features is larger."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(count, 3))
    better = (inputs[:, 0] > 0).astype(float)
    prob = np.where(rng.random(count) < flips, 1 - better, better)
    return Answers(inputs, prob, np.full(count, weight), lambda noise: np.full(count, math.exp(noise[0])))


def prior(learn_flip=True):
    return Prior(np.array([0, 1, 1]), np.array([1.0, 0.0]), np.array([1.0]), learn_flip)


def test_without_answers_the_draws_are_those_of_the_prior():
    found = draw(answers(20, weight=0.0), prior(), 2000, 6000, np.random.default_rng(0))
    assert abs(float(np.sign(found.weights).mean())) < 0.1
    # |w| = s |z|: the median of log |w| is that of log s plus that of log |z|.
    expected = np.array([1.0, 0.0, 0.0]) + math.log(0.6745)
    np.testing.assert_allclose(np.log(np.abs(found.weights)).mean(axis=0), expected - 0.24, atol=0.25)
    assert float(found.flip.mean()) == pytest.approx(0.225, abs=0.04) and float(found.flip.max()) < 0.45
    assert float(found.noise.std()) == pytest.approx(1.0, abs=0.2)


def test_flips_are_found_and_the_direction_survives_them():
    found = draw(answers(400, flips=0.3), prior(), 50, 900, np.random.default_rng(1))
    mean = found.weights.mean(axis=0)
    assert mean[0] > 3 * np.abs(mean[1:]).max() and float(found.flip.mean()) == pytest.approx(0.3, abs=0.06)
    clean = draw(answers(400), prior(), 50, 900, np.random.default_rng(1))
    assert float(clean.flip.mean()) < 0.03
    assert float(np.abs(draw(answers(), prior(False), 5, 100, np.random.default_rng(1)).flip).max()) == 0


def test_a_soft_answer_is_a_mixture_and_a_chain_is_repeatable():
    one = draw(answers(50), prior(), 7, 60, np.random.default_rng(3))
    again = draw(answers(50), prior(), 7, 60, np.random.default_rng(3))
    np.testing.assert_array_equal(one.weights, again.weights)
    assert one.weights.shape == (7, 3) and one.flip.shape == (7,) and one.noise.shape == (7, 1)


def scenes(count, seed, steps=8):
    """Observations of Meta-World's width: the segment whose thing stays closer to its goal is better."""
    generator = torch.Generator().manual_seed(seed)
    far = torch.rand(2, count, generator=generator)
    observation = torch.randn(2, count, steps, 39, generator=generator) * 0.05
    goal = torch.randn(2, count, 1, 3, generator=generator) * 0.3
    side = torch.nn.functional.normalize(torch.randn(2, count, 1, 3, generator=generator), dim=-1)
    observation[..., 36:39] = goal
    observation[..., 4:7] = goal + side * far[..., None, None]
    action, mask = torch.zeros(2, count, steps, 4), torch.ones(2, count, steps)
    first, second = (Segments(observation[i], action[i], mask[i]) for i in range(2))
    return PreferenceBatch(first, second, (far[0] < far[1]).float(), torch.ones(count))


def judged(model, batch, truth):
    list(fit_reward(model, batch, FitSettings(), torch.Generator().manual_seed(0)))
    return quality(probabilities(model, truth), truth.prob_first.double().numpy())


def test_distances_are_learned_from_answers_of_which_many_are_wrong():
    torch.manual_seed(0)
    clean, truth = scenes(120, 1), scenes(300, 2)
    wrong = torch.rand(120, generator=torch.Generator().manual_seed(4)) < 0.25
    batch = PreferenceBatch(
        clean.first, clean.second, torch.where(wrong, 1 - clean.prob_first, clean.prob_first), clean.weight
    )
    near = GaussianPosterior(Dims(39, 4), rounds=900)
    assert judged(near, batch, truth)["accuracy"] > 0.9
    assert judged(GaussianPosterior(Dims(39, 4), rounds=900, distances=False), batch, truth)["accuracy"] < 0.8
    mean, std = near.members(truth.first)
    assert mean.shape == std.shape == (32, 300, 8) and float(std.detach().min()) > 0


def test_the_deviation_lowers_every_probability_and_the_score_on_request():
    torch.manual_seed(0)
    model, batch = GaussianPosterior(Dims(39, 4), members=3, rounds=60), scenes(40, 5)
    list(fit_reward(model, batch, FitSettings(), torch.Generator().manual_seed(0)))
    mean, std = model.members(batch.first)
    difference = model.returns(batch.first) - model.returns(batch.second)
    logit = model.logits(batch.first, batch.second)
    assert (logit.abs() < difference.abs()).all() and (logit * difference >= 0).all()
    model.pessimism = 2.0
    assert_close(model.score(batch.first), (mean - 2 * std).mean(0) - model.centre)


def test_impossible_chains_are_refused():
    with pytest.raises(InputError, match="rounds"):
        GaussianPosterior(Dims(4, 2), members=10, rounds=5)
