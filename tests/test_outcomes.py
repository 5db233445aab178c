"""Ties as outcomes: probabilities, symmetry, and what the two parts of a comparison say together."""

import math

import torch
from torch.testing import assert_close

from robopref.losses.outcomes import tie_loss

RATES = torch.tensor([[0.9, 0.2, 0.05]])


def test_a_tie_and_a_decided_answer_share_the_probability_one():
    first, second = torch.randn(2, 1, 7, generator=torch.Generator().manual_seed(0))
    tie, other = (tie_loss(first, second, torch.full((7,), kind), RATES) for kind in (1.0, 0.0))
    assert_close((-tie).exp() + (-other).exp(), torch.ones(1, 7))


def test_swapping_the_segments_changes_nothing_and_sure_outcomes_tie_at_their_rates():
    first, second = torch.randn(2, 1, 7, generator=torch.Generator().manual_seed(1))
    tie = torch.tensor([1.0, 0, 1, 0, 1, 0, 1])
    assert_close(tie_loss(first, second, tie, RATES), tie_loss(second, first, tie, RATES))
    sure = torch.tensor([[-30.0, 30.0, 30.0]])
    expected = [-math.log(rate) for rate in (0.9, 0.2, 0.05)]
    made = tie_loss(sure, torch.tensor([[-30.0, 30.0, -30.0]]), torch.ones(3), RATES)
    assert_close(made, torch.tensor([expected]))


def test_given_that_one_succeeds_the_first_does_by_bradley_terry():
    first, second = torch.tensor(0.7), torch.tensor(-0.4)
    one, other = first.sigmoid() * (1 - second.sigmoid()), second.sigmoid() * (1 - first.sigmoid())
    assert_close(one / (one + other), (first - second).sigmoid())


def test_equal_rates_say_nothing_about_the_outcomes():
    first = torch.randn(1, 5, generator=torch.Generator().manual_seed(2), requires_grad=True)
    tie_loss(first, torch.zeros(1, 5), torch.ones(5), torch.full((1, 3), 0.4)).sum().backward()
    assert_close(first.grad, torch.zeros(1, 5), atol=1e-6, rtol=0)
