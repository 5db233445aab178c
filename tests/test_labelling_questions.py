"""The measure of chosen against random questions: what stands to choose from, and noise of the same strength on every problem."""

import numpy as np
import pytest
from robopref.benchmarks.labelling import active

from robopref.labelling.queries import sigmoid


def test_answers_are_right_as_often_on_any_returns_as_in_the_linear_problems():
    right = active.right_answers()
    *_, gap = active.linear(200, np.random.default_rng(0), 0)
    assert right == pytest.approx(float(sigmoid(np.abs(gap) / active.TEMPERATURE).mean()), abs=0.01)
    total = np.r_[np.random.default_rng(1).normal(200, 20, 60), np.random.default_rng(2).normal(1300, 50, 60)]
    gap = np.abs(total[:, None] - total)[np.triu_indices(120, 1)] / active.unit_for(total, right)
    assert sigmoid(gap / active.TEMPERATURE).mean() == pytest.approx(right, abs=1e-6)
    assert np.mean(gap[gap > 0]) > 0 and active.unit_for(10 * total, right) == pytest.approx(
        10 * active.unit_for(total, right)
    )


@pytest.mark.parametrize("strategy", ["random", "epig"])
def test_a_question_that_was_asked_makes_room_for_one_new_one(strategy):
    """Ten at a time: after n answers only the first 10 + n questions can have been asked, and none twice."""
    x, gap, held, held_gap = active.linear(3, np.random.default_rng(3), 40)
    marked = np.hstack([x, 1e-9 * np.arange(40)[:, None]])
    seen = []

    class Watched(active.Posterior):
        def fit(self, difference, prob_first):
            seen.append(np.rint(difference[:, 3] * 1e9).astype(int).tolist())
            return super().fit(difference, prob_first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(active, "Posterior", Watched)
        held = np.hstack([held, np.zeros((len(held), 1))])
        list(active.curve((marked, gap, held, held_gap), "none", strategy, 25, np.random.default_rng(0), at_once=10))
    assert len(seen[-1]) == 24 and len(set(seen[-1])) == 24
    for n, asked in enumerate(seen):
        assert max(asked) < 10 + n and (n == 0 or asked[:-1] == seen[n - 1])
    assert max(seen[-1]) >= 15


def test_an_arm_that_does_not_get_there_is_said_to_have_failed():
    problem = active.linear(8, np.random.default_rng(5), 30)
    assert active.labels_needed([problem], "bt", "random", 12) is None
