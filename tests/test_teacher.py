"""Scripted teachers: what they prefer, how they err, and that an answer belongs to a pair and a seed alone."""

from dataclasses import replace

import numpy as np
import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.labelers.teacher import DEFAULTS, Teacher

EVERYTHING = {"skip": 0.1, "equal": 0.1, "myopic": 0.9, "boltzmann": 0.5, "mistake": 0.2}


def pairs(count, steps=12):
    return [episode(2 * i, steps) for i in range(count)], [episode(2 * i + 1, steps) for i in range(count)]


def with_reward(number, reward):
    reward = np.asarray(reward, np.float32)
    return replace(episode(number, len(reward)), reward=reward)


def with_success(number, step, steps=12):
    success = np.zeros(steps, bool)
    if step is not None:
        success[step:] = True
    return replace(episode(number, steps), success=success)


def test_the_larger_summed_reward_is_preferred_and_an_equal_one_ties():
    low, high, equal = with_reward(0, [1, 2]), with_reward(1, [2, 2]), with_reward(2, [3, 0])
    assert Teacher().label([high, low, low], [low, high, equal]).tolist() == [1.0, 0.0, 0.5]


def test_the_smaller_distance_to_the_clipped_expert_is_preferred():
    base = episode(0, 6)
    near = replace(
        base, extra={"expert_action": np.sign(base.action) * 5}, action=np.sign(base.action)
    )  # clipped: no regret
    far = replace(episode(1, 6), extra={"expert_action": near.action}, action=-near.action)
    teacher = Teacher("regret")
    assert teacher.scores([near, far]).tolist() == [0.0, -4.0 * 2 * 6]
    assert teacher.label([near, far], [far, near]).tolist() == [1.0, 0.0]


def test_regret_without_the_experts_actions_is_refused():
    with pytest.raises(InputError, match="expert_action"):
        Teacher("regret").label([episode(0, expert=False)], [episode(1)])


def test_success_beats_failure_then_earlier_beats_later_and_failures_tie():
    early, late, never, neither = (with_success(i, step) for i, step in enumerate((2, 9, None, None)))
    answers = Teacher("success").label([early, late, never, never], [late, never, early, neither])
    assert answers.tolist() == [1.0, 1.0, 0.0, 0.5]


@pytest.mark.parametrize("noise", [*DEFAULTS, "oracle", EVERYTHING], ids=str)
@pytest.mark.parametrize("sample", [True, False])
def test_a_swapped_pair_gets_the_opposite_and_asking_again_the_same(noise, sample):
    teacher, (first, second) = Teacher("return", noise, seed=3, sample=sample), pairs(60)
    there, back = teacher.label(first, second), teacher.label(second, first)
    np.testing.assert_allclose(there, 1 - back, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(there, teacher.label(first, second))


def test_order_and_company_of_the_questions_do_not_matter_once_fitted():
    first, second = pairs(40)
    teacher = Teacher("return", EVERYTHING, beta_over_std=True).fit([*first, *second])
    together = teacher.label(first, second)
    one_by_one = [teacher.label([a], [b])[0] for a, b in zip(first[::-1], second[::-1], strict=True)]
    np.testing.assert_array_equal(together, one_by_one[::-1])


def test_another_seed_gives_other_answers():
    first, second = pairs(100)
    one, other = (Teacher("return", {"mistake": 0.3}, seed=seed).label(first, second) for seed in (0, 1))
    assert 10 < (one != other).sum() < 90


def test_an_episode_against_itself_is_a_tie_whatever_the_noise():
    same = [episode(i) for i in range(20)]
    np.testing.assert_array_equal(Teacher("return", {"boltzmann": 1.0, "mistake": 0.5}).label(same, same), 0.5)


def test_mistakes_flip_their_share_of_the_answers():
    first, second = pairs(1000, steps=3)
    right = Teacher().label(first, second)
    wrong = Teacher(noise={"mistake": 0.2}).label(first, second)
    assert abs((right != wrong).mean() - 0.2) < 0.04  # three standard errors
    np.testing.assert_allclose(Teacher(noise={"mistake": 0.2}, sample=False).label(first, second), 0.2 + 0.6 * right)


def test_boltzmann_answers_with_the_sigmoid_of_the_difference_on_average():
    first, second = pairs(1000, steps=3)
    teacher = Teacher(noise={"boltzmann": 0.8}, sample=False)
    difference = teacher.scores(first) - teacher.scores(second)
    soft = teacher.label(first, second)
    np.testing.assert_allclose(soft, 1 / (1 + np.exp(-0.8 * difference)), rtol=1e-12)
    hard = Teacher(noise={"boltzmann": 0.8}).label(first, second)
    assert set(hard) == {0.0, 1.0} and abs((hard - soft).mean()) < 0.05


def test_boltzmann_with_beta_zero_is_a_coin_and_with_a_huge_beta_an_oracle():
    first, second = pairs(200)
    np.testing.assert_array_equal(Teacher(noise={"boltzmann": 0.0}, sample=False).label(first, second), 0.5)
    np.testing.assert_array_equal(
        Teacher(noise={"boltzmann": 1e9}).label(first, second), Teacher().label(first, second)
    )


def test_beta_over_std_means_the_same_for_any_scale_of_reward():
    first, second = pairs(50)
    scaled = [[replace(t, reward=64 * t.reward) for t in side] for side in (first, second)]
    teacher = Teacher(noise="boltzmann", beta_over_std=True, sample=False)
    np.testing.assert_allclose(teacher.label(first, second), teacher.label(*scaled), rtol=1e-9)


def test_skip_gives_no_answer_where_both_returns_are_below_the_threshold():
    bad, worse, good = with_reward(0, [0.01, 0]), with_reward(1, [0, 0]), with_reward(2, [9, 9])
    teacher = Teacher(noise={"skip": 0.1}).fit([good])  # 0.1 * mean step reward 9 * 2 steps = 1.8
    answers = teacher.label([bad, bad], [worse, good])
    assert np.isnan(answers[0]) and answers[1] == 0.0


def test_equal_ties_where_the_difference_is_below_the_threshold():
    one, near, far = with_reward(0, [5, 5]), with_reward(1, [5, 5.5]), with_reward(2, [5, 7])
    teacher = Teacher(noise={"equal": 0.1, "mistake": 1.0}).fit([one])  # 0.1 * 5 * 2 = 1; ties overwrite mistakes
    assert teacher.label([one, one], [near, far]).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("noise", ["skip", "equal"])
def test_thresholds_of_negative_scores_are_quantiles(noise):
    first, second = pairs(100)
    answers = Teacher("regret", {noise: 0.3}).label(first, second)
    share = np.isnan(answers).mean() if noise == "skip" else (answers == 0.5).mean()
    assert 0.3**2 / 3 < share < 0.45  # skip needs both below; a tie is the 0.3-quantile of differences itself


def test_a_myopic_teacher_prefers_the_better_end():
    early, late = with_reward(0, [9, 0, 0]), with_reward(1, [0, 0, 5])
    assert Teacher().label([early], [late]).tolist() == [1.0]
    assert Teacher(noise={"myopic": 0.5}).label([early], [late]).tolist() == [0.0]
    assert Teacher(noise={"myopic": 1.0}).label([early], [late]).tolist() == [1.0]


def test_unknown_names_and_strengths_out_of_range_are_refused():
    with pytest.raises(InputError, match="Did you mean 'return'"):
        Teacher("retrun")
    with pytest.raises(InputError, match="Did you mean 'boltzmann'"):
        Teacher(noise={"boltzman": 1.0})
    with pytest.raises(InputError, match="Did you mean 'mistake'"):
        Teacher(noise="mistakes")
    for wrong in ({"mistake": 1.5}, {"boltzmann": -1.0}, {"skip": float("nan")}):
        with pytest.raises(InputError, match="wanted a finite number"):
            Teacher(noise=wrong)
    with pytest.raises(InputError, match="myopic"):
        Teacher("success", "myopic")
    with pytest.raises(InputError, match="as many"):
        Teacher().label([episode(0)], [])


def test_no_questions_get_no_answers_and_the_name_says_who_answered():
    assert Teacher(noise=EVERYTHING).label([], []).shape == (0,)
    assert Teacher("regret", "mistake").name == "regret+mistake=0.1"
