"""Lists, single trajectories, losses without reference, triples and several objectives: identities, gradients, refused input."""

import inspect
import math
import re
from importlib import import_module
from importlib.resources import files

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from robopref.arrays import InputError
from robopref.losses import (
    contrastive,
    divergences,
    listwise,
    marks,
    members,
    multi_objective,
    outcomes,
    pairwise,
    reference_free,
    triple,
    unpaired,
)
from robopref.losses.optimal_transport import aot, aot_unpaired
from robopref.types import PreferenceBatch, Segments

LISTS = [listwise.plackett_luce, listwise.list_softmax, listwise.lambda_rank]
REFERENCE_FREE = [
    reference_free.cpl,
    reference_free.simpo,
    reference_free.cpo,
    reference_free.fkpd,
    reference_free.mapo,
]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probabilities(size, seed=9):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def every_loss(dtype=torch.float64):
    """name -> (function of its differentiable inputs, those inputs)."""

    def draw(*shape, seed):
        return normal(*shape, seed=seed).to(dtype)

    first, second, third = draw(3, 7, seed=1)
    prob, flag = probabilities(7).to(dtype), (probabilities(7, 3) > 0.5).to(dtype)
    errors, own = draw(2, 7, seed=2).square(), draw(7, 4, seed=3)
    rho, grade, mask = draw(5, 6, seed=4), draw(5, 6, seed=5), torch.ones(5, 6, dtype=dtype)
    mask[0, 4:], mask[2, 2:] = 0, 0
    negative = (-draw(2, 7, seed=6).abs() - 0.1).unbind()
    found = {f"listwise.{loss.__name__}": (lambda r, loss=loss: loss(r, grade, mask), [rho]) for loss in LISTS}
    found |= {
        "unpaired.kto": (lambda r: unpaired.kto(r, flag, baseline=0.2, weight_bad=0.7), [first]),
        "unpaired.bco": (lambda r: unpaired.bco(r, flag, shift=0.1), [first]),
        "unpaired.apo_zero": (lambda r: unpaired.apo_zero(r, flag), [first]),
        "unpaired.d2o": (unpaired.d2o, [first, own]),
        "reference_free.cpl": (lambda a, b: reference_free.cpl(a, b, prob), [first, second]),
        "reference_free.simpo": (lambda a, b: reference_free.simpo(a, b, prob), [first, second]),
        "reference_free.cpo": (lambda a, b: reference_free.cpo(a, b, prob), [first, second]),
        "reference_free.orpo": (lambda a, b: reference_free.orpo(a, b, prob), list(negative)),
        "reference_free.fkpd": (lambda a, b, c: reference_free.fkpd(a, b, prob, c), [*errors.unbind(), third]),
        "reference_free.mapo": (lambda a, b: reference_free.mapo(a, b, prob, strength=3.0), list(errors.unbind())),
        "triple.triple": (lambda a, b, c: triple.triple(a, b, prob, c), [first, second, third]),
        "triple.triple_margin": (lambda a, b, c: triple.triple_margin(a, b, prob, c), [first, second, third]),
        "triple.seppo": (triple.seppo, [first, second]),
        "multi_objective.modpo": (
            lambda a, b: multi_objective.modpo(a, b, prob, own[:, :2], own[:, 2:], weights=[0.5, 0.3, 0.2]),
            [first, second],
        ),
        "optimal_transport.aot": (aot, [first, second, third, draw(7, seed=8)]),
        "optimal_transport.aot_unpaired": (aot_unpaired, [first, second]),
        "contrastive.contrastive": (lambda a, b: contrastive.contrastive(a, b, prob), [first, second]),
        "marks.marked_loss": (lambda b: marks.marked_loss(b, flag), [first]),
    }
    return found


@pytest.mark.parametrize("name", every_loss())
def test_the_gradient_equals_finite_differences_and_there_is_one_value_per_row(name):
    loss, inputs = every_loss()[name]
    inputs = [x.clone().requires_grad_() for x in inputs]
    assert loss(*inputs).shape == inputs[0].shape[:1]
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", every_loss())
def test_values_and_gradients_stay_finite_far_out(name):
    loss, inputs = every_loss(torch.float32)[name]
    for scale in (1e4, 0.0) if name != "reference_free.orpo" else (1e4, 1e-12):
        far = [(x * scale).requires_grad_() for x in inputs]
        value = loss(*far)
        value.sum().backward()
        assert value.isfinite().all() and all(x.grad.isfinite().all() for x in far)


def test_parts_of_reward_losses_have_the_gradients_of_finite_differences():
    danger, mask = normal(3, 5).requires_grad_(), torch.ones(3, 5, dtype=torch.float64)
    mask[1, 3:] = 0
    for sharpness in (0.0, 2.0):
        assert torch.autograd.gradcheck(lambda d, r=sharpness: marks.pooled(d, mask, r), [danger])
    first, second = (normal(2, 7, seed=s).requires_grad_() for s in (1, 2))
    rates = torch.tensor([[0.8, 0.5, 0.1], [0.7, 0.6, 0.2]], dtype=torch.float64, requires_grad=True)
    tie = (probabilities(7) > 0.5).double()
    assert torch.autograd.gradcheck(lambda a, b, r: outcomes.tie_loss(a, b, tie, r), [first, second, rates])
    segment = Segments(torch.zeros(7, 2, 3), torch.zeros(7, 2, 1), torch.ones(7, 2))
    batch = PreferenceBatch(segment, segment, probabilities(7).float(), torch.linspace(0.5, 1, 7))
    assert torch.autograd.gradcheck(lambda x: members.preference_loss(x, batch, flip=0.1)[0], [first])


NO_LOSS = {
    "facts.mixed",
    "facts.check_share",
    "unpaired.kto_baseline",
    "multi_objective.modpo_lead",
    "multi_objective.weighed",
}
PARTS = {"marks.pooled", "outcomes.tie_loss", "members.preference_loss"}
"""Covered by the test above."""


def test_no_loss_is_forgotten():
    presets = [p.read_text() for p in files("robopref.conf").joinpath("loss").iterdir() if p.name.endswith(".yaml")]
    named = {re.search(r"_target_: robopref\.losses\.(\S+)", text).group(1) for text in presets}
    public = set()
    for path in files("robopref.losses").iterdir():
        if path.name.endswith(".py"):
            module = import_module(f"robopref.losses.{path.name.removesuffix('.py')}")
            own = [k for k, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
            public |= {f"{path.name.removesuffix('.py')}.{name}" for name in own if not name.startswith("_")}
    assert public == {*named, *every_loss(), *NO_LOSS, *PARTS}


def test_without_a_pair_every_loss_has_a_known_value_at_its_start():
    zero, one, score = torch.zeros(3), torch.ones(3), torch.full((3,), -0.4)
    starts = {
        unpaired.bco(zero, one): math.log(2), unpaired.apo_zero(zero, one): 0.5, unpaired.kto(zero, one): 0.5,
        unpaired.d2o(zero, torch.zeros(3, 4)): math.log(2), triple.seppo(zero, zero): math.log(2),
        triple.triple(score, score, one, score): math.log(2) + 0.4,
        triple.triple_margin(score, score, one, score, target=0.5): math.log1p(math.exp(0.5)) + 0.4,
        reference_free.cpl(score, score, one, alpha=1.0, bias=0.5): math.log1p(math.exp(0.2)),
        reference_free.simpo(score, score, one, target=1.0): math.log1p(math.e),
        reference_free.cpo(score, score, one): math.log(2) + 0.4, reference_free.orpo(score, score, one, beta=0.1): 0.4 + 0.1 * math.log(2),
        aot(score, score, score, score): math.log(2), aot_unpaired(zero, zero): math.log(2),
        multi_objective.modpo(zero, zero, one, torch.ones(3, 1), torch.ones(3, 1), weights=[0.5, 0.5]): math.log(2),
    }  # fmt: skip
    for value, wanted in starts.items():
        assert value.tolist() == pytest.approx([wanted] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "wrong"),
    [(pairwise.robust, {"flip": 0.5}), (pairwise.conservative, {"flip": -0.1}), (pairwise.exo, {"flip": 0.0}), (pairwise.irepo, {"clip": 0.6}),
     (pairwise.flipped, {"flip": 0.7}), (pairwise.discopop, {"tau": 0.0})],
)  # fmt: skip
def test_impossible_numbers_of_a_loss_are_refused(loss, wrong):
    with pytest.raises(InputError, match=rf"loss\.{next(iter(wrong))}: got"):
        loss(torch.zeros(2), torch.zeros(2), torch.ones(2), **wrong)


@pytest.mark.parametrize("loss", LISTS)
def test_a_list_loss_sees_neither_order_nor_padding(loss):
    rho, grade = normal(3, 5, seed=1), normal(3, 5, seed=2)
    mask = torch.ones(3, 5, dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(loss(rho, grade, mask), loss(rho[:, order], grade[:, order], mask))
    padded = [F.pad(x, (0, 2), value=7.0) for x in (rho, grade)]
    assert_close(loss(*padded, F.pad(mask, (0, 2))), loss(rho, grade, mask))


@pytest.mark.parametrize("loss", LISTS)
def test_a_list_loss_lifts_the_best_and_lowers_the_worst_from_the_reference(loss):
    rho = torch.zeros(1, 4, requires_grad=True)
    loss(rho, torch.tensor([[2.0, 0.0, 3.0, 1.0]]), torch.ones(1, 4)).sum().backward()
    assert rho.grad[0, 2] < 0 < rho.grad[0, 1]
    assert rho.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_plackett_luce_of_two_is_dpo_and_starts_at_log_factorial():
    first, second = normal(2, 9)
    pairs, ones = torch.stack([first, second], 1), torch.ones(9, 2, dtype=torch.float64)
    grade = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(9, 2)
    assert_close(
        listwise.plackett_luce(pairs, grade, ones), pairwise.sigmoid(first, second, torch.ones(9, dtype=torch.float64))
    )
    start = listwise.plackett_luce(torch.zeros(1, 5), torch.arange(5.0)[None], torch.ones(1, 5))
    assert start.item() == pytest.approx(math.log(math.factorial(5)))
    softmax = listwise.list_softmax(torch.zeros(1, 5), torch.arange(5.0)[None], torch.ones(1, 5))
    assert softmax.item() == pytest.approx(math.log(5))


def test_plackett_luce_probabilities_of_all_orders_sum_to_one():
    from itertools import permutations

    rho = normal(4)
    grades = torch.tensor([[float(4 - order.index(i)) for i in range(4)] for order in permutations(range(4))])
    values = listwise.plackett_luce(rho.expand(24, 4), grades, torch.ones(24, 4))
    assert (-values).exp().sum().item() == pytest.approx(1.0)


def test_lambda_rank_weighs_a_pair_by_gain_and_discount():
    rho, grade = torch.tensor([[0.3, 1.0]]), torch.tensor([[2.0, 1.0]])
    wanted = (4 - 2) * (1 / math.log(2) - 1 / math.log(3)) * math.log1p(math.exp(0.7))
    assert listwise.lambda_rank(rho, grade, torch.ones(1, 2)).item() == pytest.approx(wanted)


@pytest.mark.parametrize("loss", LISTS)
def test_a_list_of_one_is_refused(loss):
    with pytest.raises(InputError, match="list of 1"):
        loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([[1.0, 1, 1], [1, 0, 0]]))
    with pytest.raises(InputError, match="grade"):
        loss(torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(2, 3))


def test_single_trajectories_are_pushed_where_their_flag_says():
    for loss in (unpaired.kto, unpaired.bco, unpaired.apo_zero):
        rho = torch.zeros(2, requires_grad=True)
        loss(rho, torch.tensor([1.0, 0.0])).sum().backward()
        assert rho.grad[0] < 0 < rho.grad[1]
    assert unpaired.kto(torch.zeros(2), torch.tensor([1.0, 0.0])).tolist() == [0.5, 0.5]
    moved = torch.tensor([-3.0, -1.0], requires_grad=True)
    assert unpaired.kto_baseline(moved).item() == 0 and not unpaired.kto_baseline(moved).requires_grad
    assert unpaired.kto_baseline(-moved).item() == pytest.approx(2.0)


def test_bco_of_a_pair_is_bco_of_its_two_sides():
    first, second = normal(2, 9)
    ones = torch.ones(9, dtype=torch.float64)
    from robopref.losses.absolute import bco

    assert_close(bco(first, second, ones), unpaired.bco(first, ones) + unpaired.bco(second, 0 * ones))


def test_negatives_only_lowers_the_bad_and_holds_up_the_rest():
    bad, own = torch.zeros(1, requires_grad=True), torch.zeros(1, 11, requires_grad=True)
    value = unpaired.d2o(bad, own)
    value.sum().backward()
    assert value.item() == pytest.approx(math.log(2)) and bad.grad.item() > 0 and (own.grad < 0).all()
    assert bad.grad.item() == pytest.approx(-own.grad.sum().item())


def test_cpl_with_bias_one_is_dpo_on_its_own_scores():
    first, second = normal(2, 9)
    prob = probabilities(9)
    assert_close(
        reference_free.cpl(first, second, prob, alpha=0.3, bias=1.0), pairwise.sigmoid(first, second, prob, beta=0.3)
    )


@pytest.mark.parametrize("loss", REFERENCE_FREE)
def test_without_reference_swapping_a_pair_and_its_label_changes_nothing(loss):
    first, second = normal(2, 9, seed=3).abs()
    prob, rest = probabilities(9), [torch.zeros(9, dtype=torch.float64)] if loss is reference_free.fkpd else []
    assert_close(loss(first, second, prob, *rest), loss(second, first, 1 - prob, *rest))


def test_mapo_s_odds_are_smooth_through_zero_and_follow_their_formula():
    errors = torch.tensor([0.0, 1e-5, 1.9e-4, 2.1e-4, 0.5, 3.0], dtype=torch.float64)
    formula = torch.where(errors == 0, 1.0, (0.5 * errors) / torch.expm1(0.5 * errors).clamp(min=1e-300))
    assert_close(reference_free._odds(errors), formula, rtol=1e-9, atol=0)


def test_mapo_and_fkpd_start_at_their_zero_points():
    error = torch.full((3,), 0.7)
    assert_close(reference_free.mapo(error, error, torch.ones(3)), error + 0.1 * math.log(2))
    assert_close(reference_free.fkpd(error, error, torch.ones(3), error), error + math.log(2))


def test_a_triple_is_dpo_without_reference_plus_cloning():
    first, second, demonstration = normal(3, 9)
    prob = probabilities(9)
    wanted = pairwise.sigmoid(first, second, prob, beta=0.3) - 2 * demonstration
    assert_close(triple.triple(first, second, prob, demonstration, beta=0.3, alpha=2.0), wanted)


def test_seppo_turns_the_loser_into_a_teacher_where_the_winner_has_fallen():
    for fallen, direction in ((0.5, 1), (-0.5, -1)):
        own = torch.zeros(1, requires_grad=True)
        triple.seppo(torch.tensor([fallen]), own).sum().backward()
        assert torch.sign(own.grad).item() == direction


def test_modpo_with_all_weight_on_the_labels_is_dpo_and_refuses_other_sums():
    first, second = normal(2, 5)
    prob, other = probabilities(5), normal(5, 1, seed=7)
    same = multi_objective.modpo(first, second, prob, other, -other, weights=[1.0, 0.0])
    assert_close(same, pairwise.sigmoid(first, second, prob))
    # At policy = reference, a pair whose winner is worse elsewhere must be learned more strongly than one whose winner is better there.
    zero, one = torch.zeros(1), torch.ones(1)
    worse, better = (
        multi_objective.modpo(zero, zero, one, torch.tensor([[s]]), torch.zeros(1, 1), weights=[0.5, 0.5])
        for s in (-1.0, 1.0)
    )
    assert worse < math.log(2) < better
    for weights in ([0.5, 0.6], [1.2, -0.2], [0.0, 1.0]):
        with pytest.raises(InputError, match="got"):
            multi_objective.modpo(first, second, prob, other, other, weights=weights)


def test_weights_at_test_time_choose_between_objectives_of_any_scale():
    scores = torch.tensor([[0.0, 1000.0, 500.0], [0.002, 0.0, 0.0015]])
    assert [int(multi_objective.weighed(scores, w).argmax()) for w in ([1, 0], [0, 1], [0.5, 0.5])] == [1, 0, 2]
    with pytest.raises(InputError, match="sum to one"):
        multi_objective.weighed(scores, [1, 1])


def test_optimal_transport_losses_compare_sorted_samples():
    first, second = normal(2, 9)
    prob = torch.ones(9, dtype=torch.float64)
    zero = torch.zeros(9, dtype=torch.float64)
    assert_close(aot_unpaired(first, second), pairwise.sigmoid(first.sort().values, second.sort().values, prob))
    assert_close(aot(first, second, zero, zero), pairwise.sigmoid((first - second).sort().values, zero, prob))
    assert_close(aot(first, second, first, second), torch.full((9,), math.log(2), dtype=torch.float64))


def test_alpha_divergence_meets_its_limits():
    first, second = normal(2, 9)
    prob = probabilities(9)
    assert_close(
        divergences.alpha_divergence(first, second, prob, alpha=0.0), divergences.forward_kl(first, second, prob)
    )
    near = divergences.alpha_divergence(first, second, prob, alpha=1.0 + 1e-5)
    assert_close(near, pairwise.sigmoid(first, second, prob), rtol=1e-3, atol=1e-4)
