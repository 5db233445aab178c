"""What every preset of conf/labeler keeps. A new preset joins without an edit here."""

import inspect
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from robopref.arrays import Trajectory
from robopref.checkpoint import save
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.labelers.transfer import Source, Transfer
from robopref.rewards.partial_return import PartialReturn
from robopref.types import Dims

PRESETS = sorted((Path(__file__).parents[2] / "conf/labeler").glob("*.yaml"))


def trajectory(number, steps=15):
    rng = np.random.default_rng(number)
    draw = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    reward, success, extra = draw(steps) + 1, rng.random(steps) > 0.9, {"expert_action": draw(steps, 3)}
    return Trajectory(draw(steps, 39), draw(steps, 3), reward, success, "drawer-open-v3", number, extra=extra)


def good_and_bad():
    """What any rater tells apart: rewards, success, the expert's actions, and (for raters that see no reward) the state."""
    good, bad = [trajectory(i) for i in range(30)], [trajectory(100 + i) for i in range(30)]
    ones, zeros = np.ones(15, np.float32), np.zeros(15, bool)
    good = [perfect(t, reward=9 * ones, success=~zeros) for t in good]
    return good, [worthless(t, reward=0 * ones, success=zeros) for t in bad]


@pytest.fixture(params=PRESETS, ids=lambda path: path.stem)
def labeler(request, tmp_path_factory):
    config = OmegaConf.load(request.param)
    target = hydra.utils.get_class(config["_target_"])
    more = {"seed": 3} if "seed" in inspect.signature(target).parameters else {}
    if "model" in config:  # a rater that reads a model folder gets one whose reward is the goal's closeness
        config["model"]["folder"] = str(save(closeness(), tmp_path_factory.mktemp("model") / "reward"))
    if "dataset" in inspect.signature(target).parameters:  # one that looks up answers gets some
        more["dataset"] = str(answered(tmp_path_factory))
    made = hydra.utils.instantiate(config, **more)
    if isinstance(made, Transfer):  # one that is fitted knows the answers about a like task
        good, bad = good_and_bad()
        theirs = [*good[:20], *bad[:20]]
        order = np.sign(np.subtract.outer(*[[t.reward.sum() for t in theirs]] * 2))
        every = [trajectory(i) for i in range(30)] + [trajectory(100 + i) for i in range(30)]
        made = made.fit([Source(theirs, 0.5 + 0.5 * order)], [*good, *bad, *every])
    return made


def closeness():
    """A reward model whose step reward falls with the distance of object and goal, in the first coordinate."""
    torch.manual_seed(0)
    model = PartialReturn(Dims(39, 3), members=1, width=2)
    with torch.no_grad():
        for layer in model.nets[0]:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
        model.nets[0][0].weight[0, 4], model.nets[0][0].weight[0, 36] = 1.0, -1.0
        model.nets[0][2].weight[0, 0] = 1.0
        model.nets[0][4].weight[0, 0] = 3.0
    return model


def answered(tmp_path_factory):
    """A store of every pair these tests ask about, as somebody answered them who goes by summed reward."""
    root = tmp_path_factory.mktemp("answered") / "store"
    good, bad = good_and_bad()
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
    answers = labeler.label(*good_and_bad())
    assert np.nanmean(answers) > 0.6


def perfect(t, reward, success):
    """The object reaches the goal with the hand on it."""
    observation, way = t.observation.copy(), np.linspace(0, 1, len(t), dtype=np.float32)[:, None]
    observation[:, 36:39] = 1
    observation[:, 4:7] = way
    observation[:, 0:3] = way
    return Trajectory(observation, t.action, reward, success, t.task, t.seed, extra={"expert_action": t.action})


def worthless(t, reward, success):
    """Nothing moves."""
    observation = t.observation.copy()
    observation[:, 36:39], observation[:, 4:7], observation[:, 0:3] = 1, 0, -1
    extra = {"expert_action": -np.sign(t.action)}
    return Trajectory(observation, t.action, reward, success, t.task, t.seed, extra=extra)
