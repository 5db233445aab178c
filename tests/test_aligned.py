"""Transport between films, the loss of triplets, and the reward of the nearest preferred film: identities first, then that it learns."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.windows import segments
from robopref.labelers.model import ModelLabeler
from robopref.learners.aligned import Triplets, borrow, features_of, learn_pairs, learn_triplets, time_contrast
from robopref.networks.films import films
from robopref.rewards.aligned import Aligned
from robopref.rewards.pictured import Pictured
from robopref.transport import sinkhorn

CAMERA, SIZE, STEPS = "top", 16, 8


def model(**words):
    torch.manual_seed(0)
    return Aligned(CAMERA, SIZE, width=16, hidden=16, embedding=8, **words)


def embedded(batch=5, steps=STEPS, seed=0, dtype=torch.float64):
    """Random embedded films (B, T, F) whose pictures differ."""
    made = torch.randn(batch, steps, 8, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return torch.nn.functional.normalize(made, dim=-1)


def moving(count=24, seed=0, steps=STEPS):
    """Films (N, T, 16, 16, 3) of a dot that crosses the picture at a height of its own, and those heights; high is good."""
    generator = torch.Generator().manual_seed(seed)
    height = torch.randint(2, 14, (count,), generator=generator)
    pictures = torch.full((count, steps, SIZE, SIZE, 3), 40, dtype=torch.uint8)
    for film in range(count):
        for step in range(steps):
            row, column = int(height[film]), 1 + 13 * step // steps
            pictures[film, step, row - 1 : row + 2, column : column + 3] = torch.tensor(
                [230, 210, 60], dtype=torch.uint8
            )
    return pictures, -height.double()


def ones(batch, steps=STEPS):
    return torch.ones(batch, steps, dtype=torch.float64)


def test_a_plan_has_uniform_marginals_and_agrees_with_pot_one_by_one():
    one, other = embedded(3), embedded(3, 11, seed=1)
    cost = 1 - one @ other.transpose(1, 2)
    made = sinkhorn.plans(cost, iterations=500)
    assert_close(made.sum(2), torch.full((3, STEPS), 1 / STEPS, dtype=torch.float64), atol=1e-6, rtol=0)
    assert_close(made.sum(1), torch.full((3, 11), 1 / 11, dtype=torch.float64), atol=1e-6, rtol=0)
    single = np.stack([sinkhorn.plan(c.numpy()) for c in cost])
    np.testing.assert_allclose(made.numpy(), single, atol=1e-5)


def test_identical_films_are_coupled_on_the_diagonal_at_no_cost():
    reward, one = model(epsilon=0.01), embedded()
    plan, cost = reward.plan(one, one, ones(5), ones(5))
    assert_close(plan, torch.eye(STEPS, dtype=torch.float64).expand(5, -1, -1) / STEPS, atol=1e-4, rtol=0)
    assert (plan * cost).sum((1, 2)).abs().max() < 1e-4
    assert_close(sinkhorn.diagonality(plan), torch.ones(5, dtype=torch.float64), atol=1e-3, rtol=0)
    assert_close(sinkhorn.concentration(plan), torch.ones(5, dtype=torch.float64), atol=1e-2, rtol=0)


def test_a_film_without_any_change_is_coupled_evenly_and_a_reversed_one_against_the_diagonal():
    reward, one = model(epsilon=0.01), embedded()
    still = one[:, :1].expand(-1, STEPS, -1)
    plan, _ = reward.plan(still, still, ones(5), ones(5))
    assert_close(sinkhorn.diagonality(plan), torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)
    assert_close(sinkhorn.concentration(plan), torch.zeros(5, dtype=torch.float64), atol=1e-6, rtol=0)
    back, _ = reward.plan(one, one.flip(1), ones(5), ones(5))
    assert (sinkhorn.diagonality(back) < -0.3).all()


def test_the_distance_is_symmetric_and_least_to_itself():
    reward, one, other = model(iterations=500, epsilon=0.2), embedded(), embedded(seed=1)
    there = reward.distance(one, other, ones(5), ones(5))
    assert_close(there, reward.distance(other, one, ones(5), ones(5)), atol=1e-6, rtol=0)
    assert (there > reward.distance(one, one, ones(5), ones(5))).all() and (there > 0).all()


def test_padding_and_neighbours_in_a_batch_change_nothing():
    reward, one, other = model(), embedded(), embedded(seed=1)
    alone = torch.cat([reward.distance(a[None], b[None], ones(1), ones(1)) for a, b in zip(one, other, strict=True)])
    assert_close(reward.distance(one, other, ones(5), ones(5)), alone)
    longer = torch.cat([one, embedded(5, 3, seed=2)], dim=1)
    mask = torch.cat([ones(5), torch.zeros(5, 3, dtype=torch.float64)], dim=1)
    assert_close(reward.distance(longer, other, mask, ones(5)), alone)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert_close(reward.distance(one[order], other[order], ones(5), ones(5)), alone[order])


def test_a_triplets_loss_is_ln_2_for_equals_and_mirrors_when_turned_round():
    reward, mask = model(), torch.ones(3, 5, STEPS, dtype=torch.float64)
    anchor, first, second = embedded(), embedded(seed=1), embedded(seed=2)
    prob = torch.rand(5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    same = reward.triplet_loss(torch.stack([anchor, first, first]), mask, prob)
    assert_close(same, torch.full((5,), math.log(2), dtype=torch.float64))
    there = reward.triplet_loss(torch.stack([anchor, first, second]), mask, prob)
    assert there.shape == (5,)
    assert_close(there, reward.triplet_loss(torch.stack([anchor, second, first]), mask, 1 - prob))
    assert (reward.closer(torch.stack([anchor, anchor, second]), mask) > 0).all(), "a film is closest to itself"


def test_the_gradient_of_a_triplets_loss_is_that_of_finite_differences():
    reward, mask = model(iterations=20, epsilon=0.2), torch.ones(3, 2, 4, dtype=torch.float64)
    raw = torch.randn(3, 2, 4, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64, requires_grad=True)
    prob = torch.tensor([1.0, 0.3], dtype=torch.float64)

    def loss(x):
        return reward.triplet_loss(torch.nn.functional.normalize(x, dim=-1), mask, prob).sum()

    assert torch.autograd.gradcheck(loss, (raw,), eps=1e-6, atol=1e-5)


def test_rewards_sum_to_minus_the_distance_to_the_nearest_preferred_film():
    reward, (pictures, _) = model(), moving(6)
    every = films(pictures, CAMERA)
    reward.prefer(every[:2])
    score = reward.score(every)
    assert score.shape == (6, STEPS) and (score <= 1e-6).all()
    made = reward.embed(reward.eyes.features(every)).detach()
    live = torch.ones(6, STEPS)
    to = torch.stack([reward.distance(made, made[p].expand(6, -1, -1), live, live) for p in (0, 1)])
    assert_close(score.sum(1), -to.min(dim=0).values, atol=1e-5, rtol=1e-4)
    short = films(pictures, CAMERA, torch.cat([torch.ones(6, 5), torch.zeros(6, 3)], dim=1))
    assert (reward.score(short)[:, 5:] == 0).all() and (reward.score(short)[:, :5] != 0).any()


@pytest.mark.parametrize("kind", ["aligned", "pictured"])
def test_a_saved_reward_scores_alike_and_is_a_labeler(kind, tmp_path):
    pictures, _ = moving(6)
    reward = model() if kind == "aligned" else Pictured(CAMERA, SIZE, width=16, hidden=16)
    if kind == "aligned":
        reward.prefer(films(pictures[:2], CAMERA))
    folder = save(reward, tmp_path / "reward")
    again = load(folder)
    assert torch.equal(again.score(films(pictures, CAMERA)), reward.score(films(pictures, CAMERA)))
    blank = np.zeros((STEPS, 3), np.float32)
    filmed = [
        Trajectory(blank, blank, blank[:, 0], blank[:, 0] > 1, seed=i, images={CAMERA: p.numpy()})
        for i, p in enumerate(pictures)
    ]
    answers = ModelLabeler(again, stride=1).label(filmed[:3], filmed[3:])
    np.testing.assert_allclose(answers, 1 - ModelLabeler(again, stride=1).label(filmed[3:], filmed[:3]), atol=1e-6)
    with pytest.raises(InputError, match="without pictures by 'top'"):
        segments([Trajectory(blank, blank, blank[:, 0], blank[:, 0] > 1)], cameras=(CAMERA,))


def test_bad_input_is_told():
    pictures, _ = moving(2)
    with pytest.raises(InputError, match="got no preferred film"):
        model().score(films(pictures, CAMERA))
    with pytest.raises(InputError, match="got pictures by side, wanted them by 'top'"):
        model().eyes.features(films(pictures, "side"))
    with pytest.raises(InputError, match=r"got shape .*8, 8, 3"):
        model().eyes.features(films(pictures[:, :, ::2, ::2], CAMERA))
    with pytest.raises(InputError, match="epsilon=0"):
        model(epsilon=0)
    with pytest.raises(InputError, match=r"Triplets\.films: got shape"):
        Triplets(torch.zeros(2, 3, dtype=torch.int64), torch.ones(3))


def test_standardising_again_changes_no_output():
    reward, (pictures, _) = model(), moving(4)
    seen = features_of(reward, films(pictures, CAMERA))
    before = reward.embed(seen)
    reward.eyes.standardise(seen)
    assert_close(reward.embed(seen), before, atol=1e-4, rtol=1e-3)
    assert_close(((seen - reward.eyes.mean) / reward.eyes.deviation).mean((0, 1)), torch.zeros(32), atol=1e-3, rtol=0)


def test_an_answer_about_a_preferred_anchor_is_three_pairs():
    answers = Triplets(torch.tensor([[0, 0], [1, 2], [3, 4]]), torch.tensor([1.0, 0.25]))
    first, second, prob = answers.pairs()
    assert first.tolist() == [1, 2, 0, 0, 0, 0] and second.tolist() == [3, 4, 1, 2, 3, 4]
    assert prob.tolist() == [1.0, 0.25, 1, 1, 1, 1]


def test_a_head_that_is_held_stays_nearer_to_where_it_was_and_no_answer_is_no_training():
    pictures, _ = moving(6)
    every = films(pictures, CAMERA)
    answers = Triplets(torch.tensor([[0, 0, 1], [2, 3, 4], [3, 4, 5]]), torch.tensor([1.0, 0.0, 1.0]))

    def gone(stay):
        reward = model()
        words = {"steps": 15, "lr": 3e-3, "batch": 3, "generator": torch.Generator().manual_seed(0), "every": 2}
        return list(learn_triplets(reward, features_of(reward, every), every.mask, answers, stay=stay, **words))[-1]

    assert gone(100.0)["reward/gone"] < 0.5 * gone(0.0)["reward/gone"]
    nothing = Triplets(torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0))
    with pytest.raises(InputError, match="got no answered triplet"):
        next(
            learn_triplets(model(), torch.zeros(6, 8, 32), every.mask, nothing, steps=1, lr=1, batch=1, generator=None)
        )


def test_a_dozen_answers_teach_both_rewards_what_is_preferred():
    pictures, worth = moving(40)
    every = films(pictures, CAMERA)
    best = int(worth[:20].argmax())
    generator = torch.Generator().manual_seed(0)
    sides = torch.stack([torch.randperm(20, generator=generator)[:2] for _ in range(16)], dim=1)
    sides = sides[:, (worth[sides[0]] != worth[sides[1]]) & (sides != best).all(0)][:, :12]
    answers = Triplets(
        torch.stack([torch.full_like(sides[0], best), *sides]), (worth[sides[0]] > worth[sides[1]]).float()
    )
    aligned, plain = model(), Pictured(CAMERA, SIZE, width=16, hidden=16)
    contrast = list(time_contrast(aligned, every[:20], steps=80, lr=5e-3, generator=generator))
    assert contrast[-1]["contrast/found"] > contrast[0]["contrast/found"] + 0.2
    borrow(plain, aligned, every[:20])
    for reward, learn in ((aligned, learn_triplets), (plain, learn_pairs)):
        seen = features_of(reward, every[:20])
        words = {"steps": 80, "lr": 3e-3, "batch": 8, "generator": generator}
        logs = list(learn(reward, seen, every.mask[:20], answers, **words))
        assert logs[-1]["reward/loss"] < 0.6 * logs[0]["reward/loss"]
    aligned.prefer(every[best : best + 1])
    for reward in (aligned, plain):
        found = reward.returns(every[20:])[0].detach().numpy()
        assert spearmanr(found, worth[20:].numpy()).statistic > 0.6
