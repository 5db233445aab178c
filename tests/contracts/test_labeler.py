"""What every preset of conf/labeler keeps. A new preset joins without an edit here."""

import inspect
from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf

from robopref.arrays import Trajectory
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore

PRESETS = sorted((Path(__file__).parents[2] / "conf/labeler").glob("*.yaml"))


def trajectory(number, steps=15):
    rng = np.random.default_rng(number)
    draw = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    reward, success, extra = draw(steps) + 1, rng.random(steps) > 0.9, {"expert_action": draw(steps, 3)}
    return Trajectory(draw(steps, 4), draw(steps, 3), reward, success, "made-up", number, extra=extra)


@pytest.fixture(params=PRESETS, ids=lambda path: path.stem)
def labeler(request, tmp_path_factory):
    config = OmegaConf.load(request.param)
    target = hydra.utils.get_class(config["_target_"])
    more = {"seed": 3} if "seed" in inspect.signature(target).parameters else {}
    if "dataset" in inspect.signature(target).parameters:  # it looks up answers: give it some
        more["dataset"] = str(answered(tmp_path_factory))
    return hydra.utils.instantiate(config, **more)


def answered(tmp_path_factory):
    """A store of every pair these tests ask about, as somebody answered them who goes by summed reward."""
    root = tmp_path_factory.mktemp("answered") / "store"
    good, bad = (
        [
            change(trajectory(i + shift), reward=reward * np.ones(15, np.float32), success=np.full(15, bool(reward)))
            for i in range(30)
        ]
        for change, shift, reward in ((perfect, 0, 9), (worthless, 100, 0))
    )
    with StoreWriter(root) as writer:
        for one in [*(trajectory(i) for i in range(30)), *(trajectory(100 + i) for i in range(30)), *good, *bad]:
            writer.add(one)
    store = TrajectoryStore(root)
    total = [float(t.reward.sum()) for t in store]
    asked = [(i, i + 30) for i in (*range(30), *range(60, 90))]
    rows = [Pair(Window(a, 0, 15), Window(b, 0, 15), float(total[a] > total[b]), source="human") for a, b in asked]
    PreferenceStore(store).append(rows)
    return root


@pytest.fixture(scope="module")
def sides():
    return [trajectory(i) for i in range(30)], [trajectory(100 + i) for i in range(30)]


def test_answers_are_one_probability_or_nan_per_pair(labeler, sides):
    answers = labeler.label(*sides)
    assert answers.shape == (30,) and answers.dtype == np.float64
    given = answers[~np.isnan(answers)]
    assert len(given) and ((given >= 0) & (given <= 1)).all()


def test_a_swapped_pair_gets_the_opposite_answer(labeler, sides):
    first, second = sides
    np.testing.assert_allclose(labeler.label(first, second), 1 - labeler.label(second, first), atol=1e-12)


def test_the_same_question_gets_the_same_answer(labeler, sides):
    np.testing.assert_array_equal(labeler.label(*sides), labeler.label(*sides))


def test_an_episode_ties_with_itself(labeler, sides):
    answers = labeler.label(sides[0], sides[0])
    np.testing.assert_allclose(answers[~np.isnan(answers)], 0.5, atol=1e-12)


def test_clearly_better_episodes_win_more_often_than_not(labeler):
    good, bad = [trajectory(i) for i in range(30)], [trajectory(100 + i) for i in range(30)]
    ones, zeros = np.ones(15, np.float32), np.zeros(15, bool)
    good = [perfect(t, reward=9 * ones, success=~zeros) for t in good]
    bad = [worthless(t, reward=0 * ones, success=zeros) for t in bad]
    answers = labeler.label(good, bad)
    assert np.nanmean(answers) > 0.7


def perfect(t, reward, success):
    return Trajectory(t.observation, t.action, reward, success, t.task, t.seed, extra={"expert_action": t.action})


def worthless(t, reward, success):
    extra = {"expert_action": -np.sign(t.action)}
    return Trajectory(t.observation, t.action, reward, success, t.task, t.seed, extra=extra)
