"""What every preset of conf/loss/ keeps, and that it behaves as the FACTS table of its module says."""

from importlib import import_module

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close


def facts(preset):
    module, _, name = preset["_target_"].rpartition(".")
    return import_module(module).FACTS[name]


def slopes(loss, first, second, prob):
    """Derivatives of the loss of one pair with respect to the two scores."""
    first, second = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (first, second))
    loss(first, second, torch.tensor([prob], dtype=torch.float64)).sum().backward()
    return first.grad.item(), second.grad.item()


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
    one, zero = loss(first, second, torch.ones(64)), loss(first, second, torch.zeros(64))
    if facts(preset).zero is None:  # regression on the log-odds: a soft label has a target of its own between the two
        soft = loss(first, second, prob)
        assert (soft <= torch.maximum(one, zero) + 1e-5).all() and not torch.allclose(
            soft, prob * one + (1 - prob) * zero
        )
    else:
        assert_close(loss(first, second, prob), prob * one + (1 - prob) * zero)


def test_the_zero_point_does_not_depend_on_the_label(preset):
    loss, zero, prob = instantiate(preset), torch.zeros(11), torch.linspace(0, 1, 11)
    if facts(preset).zero is None:
        assert_close(loss(zero, zero, prob), loss(zero, zero, 1 - prob))
    else:
        assert_close(loss(zero, zero, prob), torch.full((11,), facts(preset).zero))


def test_the_first_step_raises_the_preferred_side_or_says_that_it_does_not(preset):
    winner, loser = slopes(instantiate(preset), 0.0, 0.0, 1.0)
    found = {(-1, 1): "both", (0, 1): "loser", (1, -1): "reversed"}[
        winner and round(winner / abs(winner)), round(loser / abs(loser))
    ]
    assert found == facts(preset).start


def test_a_common_fall_of_both_scores_costs_what_the_table_says(preset):
    loss, (first, second, prob) = instantiate(preset), scores(2)
    if facts(preset).shift == "free":
        assert_close(loss(first + 3, second + 3, prob), loss(first, second, prob), atol=1e-5, rtol=1e-4)
        return
    before, after = (loss(torch.tensor([1.0 - d]), torch.tensor([-1.0 - d]), torch.ones(1)).item() for d in (0, 3))
    assert before < after if facts(preset).shift == "held" else before > after


def test_values_and_gradients_stay_finite_at_large_margins(preset):
    loss = instantiate(preset)
    for other in (0.0, 1e4, -1e4):
        first = torch.tensor([1e4, -1e4], requires_grad=True)
        value = loss(first, torch.full((2,), other), torch.tensor([0.0, 1.0]))
        value.sum().backward()
        assert value.isfinite().all() and first.grad.isfinite().all()


def test_the_gradient_equals_finite_differences(preset):
    loss, (first, second, prob) = instantiate(preset), scores(3, 16)
    first, second, prob = first.double().requires_grad_(), second.double().requires_grad_(), prob.double()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, prob), (first, second))


def test_a_tie_does_what_the_table_says(preset):
    loss, tie = instantiate(preset), facts(preset).tie
    at_zero, apart = slopes(loss, 0.0, 0.0, 0.5), slopes(loss, 0.02, -0.02, 0.5)
    assert at_zero == pytest.approx((0, 0), abs=1e-7) or tie == "falls"
    if tie == "silent":
        assert apart == pytest.approx((0, 0), abs=1e-7)
    elif tie == "falls":
        assert min(at_zero) > 0
    elif tie == "rises":
        assert max(apart) < 0
    elif tie == "apart":
        assert apart[0] < 0 < apart[1]
    else:
        assert apart[0] > 0 > apart[1]
        together = slopes(loss, 0.3, 0.3, 0.5)
        assert min(together) > 0 if tie == "zero" else sum(together) == pytest.approx(0, abs=1e-6)
