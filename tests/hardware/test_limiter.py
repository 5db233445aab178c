"""The limiter: no command breaks a limit, full speed is reached, and one arm alone moves as it does in a batch, to the bit."""

import numpy as np
import pytest
from robopref.hardware.guard import Guard, Settings
from robopref.hardware.limiter import Limiter, Motion
from robopref.hardware.limits import FR3, PANDA
from robopref.hardware.reasons import Reason
from robopref.hardware.testing.sweep import guard_sweep, sweep

HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


@pytest.mark.parametrize("limits", [FR3, PANDA], ids=lambda arm: arm.name)
def test_no_random_command_breaks_a_limit_and_full_speed_is_reached(limits):
    found = sweep(limits, sequences=20_000, seed=3, arms=256)
    assert found.violations == 0
    assert found.fastest.min() >= 0.95
    assert found.steps >= 20_000 * 50


@pytest.mark.parametrize("limits", [FR3, PANDA], ids=lambda arm: arm.name)
def test_a_guard_of_full_speed_breaks_no_limit_and_reaches_its_own_cap(limits):
    limiter = Guard(limits, Settings(speed=1.0)).limiter
    assert (limiter.limits.v_max < limits.v_max).any(), "the cap is what this is about"
    found = sweep(limits, sequences=20_000, seed=3, arms=256, limiter=limiter)
    assert found.violations == 0 and found.fastest.min() >= 0.95
    whole = guard_sweep(limits, sequences=40, seed=0)
    assert whole.violations == 0 and whole.taken > 40


def test_the_sweep_notices_a_limiter_that_trusts_the_robots_own_braking():
    class Trusting(Limiter):
        def __init__(self, limits):
            super().__init__(limits)
            self._braking, self._offset = limits.deceleration, limits.offset + 2e-3

    assert sweep(FR3, sequences=4_000, seed=0, arms=64, limiter=Trusting(FR3)).violations > 0


def test_one_arm_moves_as_the_same_arm_in_a_batch():
    limiter, rng = Limiter(FR3), np.random.default_rng(0)
    start, targets = rng.uniform(FR3.stop_min, FR3.stop_max, (5, 7)), rng.uniform(-2, 2, (200, 5, 7))
    batch, single = Motion.at(start), Motion.at(start[2])
    for i, target in enumerate(targets):
        holds = i % 50 > 40
        batch = limiter.step(batch, None if holds else target)[0]
        single = limiter.step(single, None if holds else target[2])[0]
        for one, all_of_them in ((single.q, batch.q), (single.v, batch.v), (single.a, batch.a)):
            assert np.array_equal(one, all_of_them[2])


@pytest.mark.parametrize("limits", [FR3, PANDA], ids=lambda arm: arm.name)
def test_one_arm_is_told_the_same_reasons_as_in_a_batch_of_one(limits):
    limiter, rng, seen = Limiter(limits), np.random.default_rng(1), set()
    motion = Motion.at(HOME)
    for _ in range(300):
        target = (
            rng.uniform(limits.stop_min, limits.stop_max)
            if rng.random() < 0.3
            else motion.q + rng.normal(size=7) * 1e-5
        )
        for _ in range(5):
            batch, told = limiter.step(Motion(motion.q[None], motion.v[None], motion.a[None]), target[None])
            motion, reason = limiter.step(motion, target)
            assert reason == told and np.array_equal(motion.a, batch.a[0])
            seen.add(reason)
    assert {Reason.NONE} < seen and Reason.VEL | Reason.ACC | Reason.JERK in seen
