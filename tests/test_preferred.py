"""Tasks with a preference beside success: the score knows it, the expert minds it as told, and the mark is in the picture only."""

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld
from robopref.envs.metaworld_preferred import metaworld_preferred
from robopref.envs.visible_preferences import Avoid, Order, Together

from robopref.arrays import InputError


def played(env, care, seed=0):
    """Return, whether it succeeded, and last observation of the expert's episode."""
    seen, _ = env.reset(seed=seed, options={"care": care})
    total, succeeded, over = 0.0, False, False
    while not over:
        seen, reward, _, over, info = env.step(env.expert(seen))
        total, succeeded = total + reward, succeeded or info["success"]
    return total, succeeded, seen


@pytest.mark.parametrize("preference", ["avoid", "order", "together"])
def test_success_alone_does_not_tell_a_careful_episode_from_a_careless_one(preference):
    env = metaworld_preferred("reach", preference)
    careful, careless = ([played(env, care, seed) for seed in range(3)] for care in (1.0, 0.0))
    assert all(one[1] for one in [*careful, *careless])
    assert min(one[0] for one in careful) > max(one[0] for one in careless)
    assert all(abs(one[2][-1]) < 1e-6 for one in careful) and all(one[2][-1] > 0.2 for one in careless)


def test_a_zone_costs_more_the_deeper_and_a_place_less_the_nearer():
    zone, place, mark = Avoid(), Order(), np.zeros(2)
    at = [np.array([x, 0.0, 0.2]) for x in (0.0, 0.03, zone.radius, 0.2)]
    depth = [zone.fault(hand, mark, 0.0) for hand in at]
    assert depth[0] == 1 and 0 < depth[1] < 1 and depth[2:] == [0, 0]
    assert zone.record(at[3], mark, 0.4) == 0.4 and zone.record(at[0], mark, 0.4) == 1
    assert place.record(at[0], mark, 1.0) == 0 and place.record(at[3], mark, 0.0) == 0
    assert place.record(at[2], mark, 1.0) == pytest.approx((zone.radius - place.near) / (place.aside - place.near))


def test_a_puck_stays_until_it_is_touched_and_is_then_pulled_and_never_pushed():
    puck, mark = Together(), np.zeros(2)
    at = [np.array([x, 0.0, 0.2]) for x in (puck.aside, 0.1, puck.lead, 0.02, 0.3)]
    record = puck.begin
    for hand in at[:2]:
        record = puck.record(hand, mark, record)
        assert np.array_equal(puck.moved(hand, mark, record), mark)
    assert puck.fault(at[0], mark, record) == 1 and 0 < puck.fault(at[1], mark, record) == record < 1
    record = puck.record(at[2], mark, record)
    assert record == 0 and np.array_equal(puck.moved(at[3], mark, record), mark), "a slack lead pulls nothing"
    mark = puck.moved(at[4], mark, record)
    np.testing.assert_allclose(mark, [0.3 - puck.lead, 0.0])
    assert puck.record(at[0], mark, record) == 0 and puck.fault(at[4], mark, record) == 0


def test_a_careful_hand_brings_the_puck_to_the_goal_and_a_saved_state_keeps_it():
    env = metaworld_preferred("reach", "together")
    for care, apart in ((1.0, True), (0.0, False)):
        seen = played(env, care)[2]
        assert (np.hypot(*(seen[39:41] - seen[36:38])) < 0.1) == apart
    env.reset(seed=1, options={"care": 1.0})
    for _ in range(20):
        seen = env.step(env.expert(env._observation()))[0]
    other = metaworld_preferred("reach", "together")
    np.testing.assert_array_equal(other.set_state(env.get_state()), seen)
    action = env.expert(seen)
    np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


@pytest.mark.gl
def test_the_mark_is_in_the_picture_and_touches_nothing():
    plain, marked = MetaWorld("reach", image_size=84), metaworld_preferred("reach")
    plain.reset(seed=3)
    marked.reset(seed=3)
    np.testing.assert_array_equal(plain.get_state(), marked.get_state()[7:])
    bluer = marked.render("corner").astype(int)[..., 2] - plain.render("corner").astype(int)[..., 2]
    assert (bluer > 30).sum() > 20
    settings = marked.render_settings
    assert settings["marks"] == "reach-v3-avoid" and settings["arm"] == "sawyer"


@pytest.mark.gl
def test_the_other_arm_moves_alike_and_looks_otherwise():
    one, other = metaworld_preferred("reach"), metaworld_preferred("reach", arm="sticks")
    assert played(one, 0.5)[0] == played(other, 0.5)[0]
    assert np.abs(one.render("corner").astype(int) - other.render("corner")).mean() > 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"preference": "hurry"}, "got 'hurry', wanted avoid"), ({"arm": "panda"}, "got 'panda', wanted one of sawyer"),
        ({"horizon": 200, "repeat": 3}, "wanted both >= 1 and at most 500 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        metaworld_preferred("reach", **words)
    with pytest.raises(InputError, match=r"options\.care: got 2\.0"):
        metaworld_preferred("reach").reset(seed=0, options={"care": 2})
