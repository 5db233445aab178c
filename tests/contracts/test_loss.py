import math

import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from robopref.losses.pairwise import ZERO_POINT


def scores(seed=0, size=64):
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randn(2, size, generator=generator)
    return first, second, torch.rand(size, generator=generator)


def test_swapping_a_pair_and_its_label_changes_nothing(preset):
    loss, (first, second, prob) = instantiate(preset), scores()
    assert loss(first, second, prob).shape == (64,)
    assert_close(loss(first, second, prob), loss(second, first, 1 - prob))


def test_a_soft_label_mixes_the_two_directions(preset):
    loss, (first, second, prob) = instantiate(preset), scores(1)
    mixed = prob * loss(first, second, torch.ones(64)) + (1 - prob) * loss(first, second, torch.zeros(64))
    assert_close(loss(first, second, prob), mixed)


def test_the_zero_point_does_not_depend_on_the_label(preset):
    loss = instantiate(preset)
    wanted = ZERO_POINT[preset["_target_"].rpartition(".")[2]]
    zero = torch.zeros(11)
    assert_close(loss(zero, zero, torch.linspace(0, 1, 11)), torch.full((11,), wanted))


def test_at_the_zero_point_the_preferred_side_is_raised(preset):
    loss = instantiate(preset)
    first, second = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    loss(first, second, torch.ones(1)).sum().backward()
    assert first.grad.item() < 0 < second.grad.item()


def test_only_the_difference_of_the_scores_counts(preset):
    loss, (first, second, prob) = instantiate(preset), scores(2)
    assert_close(loss(first + 3, second + 3, prob), loss(first, second, prob), atol=1e-5, rtol=1e-4)


def test_values_and_gradients_stay_finite_at_large_margins(preset):
    loss = instantiate(preset)
    first = torch.tensor([1e4, -1e4], requires_grad=True)
    value = loss(first, torch.zeros(2), torch.tensor([0.0, 1.0]))
    value.sum().backward()
    assert value.isfinite().all() and first.grad.isfinite().all()


def test_the_gradient_equals_finite_differences(preset):
    loss, (first, second, prob) = instantiate(preset), scores(3, 16)
    first, second, prob = first.double().requires_grad_(), second.double().requires_grad_(), prob.double()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, prob), (first, second))


def test_a_tie_pulls_equal_scores_nowhere(preset):
    loss = instantiate(preset)
    first = torch.zeros(1, requires_grad=True)
    loss(first, torch.zeros(1), torch.full((1,), 0.5)).sum().backward()
    assert math.isclose(first.grad.item(), 0.0, abs_tol=1e-7)
