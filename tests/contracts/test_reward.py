import math

import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from robopref.checkpoint import load, save
from robopref.train import fit
from robopref.types import Dims, PreferenceBatch, Segments

DIMS = Dims(observation=4, action=2)


def build(preset):
    torch.manual_seed(0)
    return instantiate(preset, _partial_=True)(dims=DIMS)


def pairs(count=40, steps=12, seed=0):
    """Separable: the better segment has the larger first state."""
    generator = torch.Generator().manual_seed(seed)
    level = torch.randn(2, count, generator=generator)
    observation = torch.randn(2, count, steps, 4, generator=generator) * 0.3
    observation[..., 0] += level[..., None]
    action, mask = torch.randn(2, count, steps, 2, generator=generator), torch.ones(2, count, steps)
    first, second = (Segments(observation[i], action[i], mask[i]) for i in range(2))
    return PreferenceBatch(first, second, (level[0] > level[1]).float(), torch.ones(count))


def test_scores_have_one_value_per_step_and_none_at_padding(preset):
    model, batch = build(preset), pairs()
    mask = batch.first.mask.clone()
    mask[:, 7:] = 0
    scores = model.score(Segments(batch.first.observation, batch.first.action, mask))
    assert scores.shape == mask.shape and (scores[:, 7:] == 0).all() and (scores[:, :7] != 0).any()


def test_padding_does_not_change_the_loss(preset):
    model, batch = build(preset), pairs()

    def padded(s):
        extra = torch.full((len(s), 5, 1), 9.0)
        return Segments(
            torch.cat([s.observation, extra.expand(-1, -1, 4)], 1),
            torch.cat([s.action, extra.expand(-1, -1, 2)], 1),
            torch.cat([s.mask, torch.zeros(len(s), 5)], 1),
        )

    longer = PreferenceBatch(padded(batch.first), padded(batch.second), batch.prob_first, batch.weight)
    assert_close(model.loss(batch)[0], model.loss(longer)[0])


def test_swapping_a_pair_and_its_label_changes_nothing(preset):
    model, batch = build(preset), pairs()
    swapped = PreferenceBatch(batch.second, batch.first, 1 - batch.prob_first, batch.weight)
    assert_close(model.loss(batch)[0], model.loss(swapped)[0])


def test_equal_segments_cost_ln_2(preset):
    model, batch = build(preset), pairs()
    same = PreferenceBatch(batch.first, batch.first, batch.prob_first, batch.weight)
    # Beside the preferences a loss may hold other terms, for example a floor under the variance.
    assert model.loss(same)[1]["reward/loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.slow
def test_it_ranks_held_out_pairs_after_forty_labels(preset):
    model, batch = build(preset), pairs()
    live = batch.first.mask.bool()
    model.normalizer.fit(batch.first.observation[live], batch.first.action[live])
    for _ in fit(model, lambda _: model.loss(batch), steps=150, lr=2e-3, generator=torch.Generator()):
        pass
    _, logs = model.loss(pairs(200, seed=1))
    assert logs["reward/accuracy"] >= 0.9


def test_saving_and_loading_gives_the_same_scores(preset, tmp_path):
    model, batch = build(preset), pairs()
    assert torch.equal(model.score(batch.first), load(save(model, tmp_path / "reward")).score(batch.first))


def test_members_are_kept_apart_and_disagree(preset):
    model, batch = build(preset), pairs()
    logits = model.logits(batch.first, batch.second)
    assert logits.shape == (len(model.nets), 40)
    assert (model.uncertainty(batch.first) >= 0).all() and model.uncertainty(batch.first).max() > 0
    share = torch.zeros_like(logits)
    share[0] = 1
    model.loss(batch, share)[0].backward()
    touched = [any(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters()) for net in model.nets]
    assert touched[0]


def test_swapping_the_segments_gives_the_opposite_probability(preset):
    model, batch = build(preset), pairs()
    model.calibration.scale.fill_(2.0)
    one, other = model.prob_first(batch.first, batch.second), model.prob_first(batch.second, batch.first)
    assert_close(one, 1 - other, atol=1e-5, rtol=1e-5)  # the same up to the rounding of a logit
    assert ((one > 0) & (one < 1)).all()


def test_segments_of_unequal_length_are_padded_not_cut(preset):
    model, batch = build(preset), pairs()
    short = Segments(batch.second.observation[:, :7], batch.second.action[:, :7], batch.second.mask[:, :7])
    masked = Segments(batch.second.observation, batch.second.action, batch.second.mask.clone())
    masked.mask[:, 7:] = 0
    assert_close(model.logits(batch.first, short), model.logits(batch.first, masked), atol=1e-5, rtol=1e-5)


def test_a_soft_label_mixes_the_two_directions(preset):
    model, batch = build(preset), pairs()
    soft = torch.rand(40, generator=torch.Generator().manual_seed(5))

    def loss(prob):
        made = PreferenceBatch(batch.first, batch.second, prob, batch.weight)
        return torch.tensor([model.loss(made[i : i + 1])[1]["reward/loss"] for i in range(5)])

    mixed = soft[:5] * loss(torch.ones(40)) + (1 - soft[:5]) * loss(torch.zeros(40))
    assert_close(loss(soft), mixed, atol=1e-5, rtol=1e-5)
