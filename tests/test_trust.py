"""Answers that follow from what was compared foresee each other; answers by a coin, or about other questions, do not."""

import numpy as np
import pytest
from episodes import episode

from robopref.arrays import Trajectory
from robopref.checkpoint import save
from robopref.policies.diffusion import Diffusion
from robopref.run import compose
from robopref.stages import choosing
from robopref.stages.reward import Answer
from robopref.stages.trust import foreseen
from robopref.types import Dims

REWARD = {"_target_": "robopref.rewards.quadratic.Quadratic"}
FIT = {"steps": 5, "lr": 1e-3}


def worth(one: Trajectory) -> float:
    return float(one.observation[-1, 0])


@pytest.fixture(scope="module")
def seen():
    """Episodes that stand still, so that their worth is in every step, and 60 questions about them."""
    made = [episode(number, chunk=False, expert=False) for number in range(40)]
    for one in made:
        one.observation[:] = one.observation[-1]
    asked = np.random.default_rng(0).permuted(np.tile(np.arange(40), (60, 1)), axis=1)[:, :2]
    return made, [Answer(int(a), int(b), float(worth(made[a]) > worth(made[b]))) for a, b in asked]


def test_answers_that_follow_from_what_was_compared_foresee_each_other_also_with_flips(seen):
    made, answers = seen
    found = foreseen(REWARD, made, answers, FIT, 0)
    assert found["of"] == 60 and found["right"] > 50 and found["p_value"] < 1e-6
    flips = np.random.default_rng(1).random(60) < 0.25
    noisy = [one._replace(prob_first=abs(one.prob_first - flip)) for one, flip in zip(answers, flips, strict=True)]
    assert foreseen(REWARD, made, noisy, FIT, 0)["p_value"] < 0.05
    assert foreseen(REWARD, made, answers, FIT, 0) == found, "asked again it is the same"


def test_answers_about_other_questions_foresee_nothing(seen):
    made, answers = seen
    for shift in (1, 2, 3):
        moved = [one._replace(prob_first=answers[n - shift].prob_first) for n, one in enumerate(answers)]
        assert foreseen(REWARD, made, moved, FIT, 0)["p_value"] > 0.05


def test_where_nothing_was_decided_nothing_is_foreseen(seen):
    made, answers = seen
    ties = [one._replace(prob_first=0.5) for one in answers]
    assert foreseen(REWARD, made, ties, FIT, 0) == {"right": 0, "of": 0, "p_value": 1.0}


@pytest.mark.parametrize(
    ("p_value", "gained", "chosen", "why"),
    [(0.01, True, "round-0", ""), (0.2, True, "base", "3 of 5 answers"), (0.01, False, "base", "none saw a gain")],
)
def test_the_base_stays_where_no_gate_saw_a_gain_or_answers_do_not_foresee_each_other(
    tmp_path, monkeypatch, p_value, gained, chosen, why
):
    folders = [
        save(Diffusion(Dims(6, 2), width=8, depth=1, diffusion_steps=10), tmp_path / name) for name in ("base", "new")
    ]
    config = compose(["env=point_mass", "task=point-mass", "experiment=quickstart", "choose.resets=3"])
    values = iter([1.0, 3.0])
    monkeypatch.setattr(choosing, "predicted_success", lambda config, policy, model: next(values))
    monkeypatch.setattr(choosing, "_left_out", lambda config, stores: {"right": 3, "of": 5, "p_value": p_value})
    reward = folders[0]  # any folder that can be read
    found = choosing.choose(config, folders[1:], folders[0], reward, tmp_path / "chosen", [tmp_path], gained)
    assert found["chosen"] == chosen and why in found["doubt"] and bool(found["doubt"]) == (chosen == "base")
