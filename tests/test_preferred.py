"""Tasks with a preference beside success: the score knows it, the expert minds it as told, and the mark is in the picture only."""

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld
from robopref.envs.metaworld_preferred import metaworld_preferred
from robopref.envs.visible_preferences import Avoid, Order

from robopref.arrays import InputError


def played(env, care, seed=0):
    """Return, whether it succeeded, and last observation of the expert's episode."""
    seen, _ = env.reset(seed=seed, options={"care": care})
    total, succeeded, over = 0.0, False, False
    while not over:
        seen, reward, _, over, info = env.step(env.expert(seen))
        total, succeeded = total + reward, succeeded or info["success"]
    return total, succeeded, seen


@pytest.mark.parametrize("preference", ["avoid", "order"])
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
