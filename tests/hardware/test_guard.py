"""The guard: no input moves the arm outside its limits, every change has a reason, and what stopped stays stopped."""

import numpy as np
import pytest
from robopref.hardware.guard import Guard, Settings
from robopref.hardware.limits import DT, FR3, PANDA
from robopref.hardware.reasons import REFUSED, Reason, State, names
from robopref.hardware.testing.bench import HOME, Bench
from robopref.hardware.workspace import Workspace

from robopref.arrays import InputError


def test_a_target_is_reached_and_not_overshot():
    bench = Bench(speed=1.0, delta=3.0)
    target = HOME + np.array([0.5, 0.2, -0.4, 0.3, 0.5, 0.3, -0.5])
    farthest = np.zeros(7)
    for _ in range(40):
        assert not bench.command(target) & REFUSED
        for output in bench.run(0.05):
            farthest = np.maximum(farthest, (output.motion.q - HOME) * np.sign(target - HOME))
    assert np.allclose(bench.guard.motion.q, target, atol=1e-4)
    assert (farthest <= np.abs(target - HOME) + 1e-3).all()


REFUSALS = {
    "epoch": ({"epoch": 2}, Reason.EPOCH),
    "replayed": ({"seq": 0}, Reason.SEQ),
    "nan": ({"target": [np.nan, *HOME[1:]]}, Reason.NONFINITE),
    "infinite": ({"target": [np.inf, *HOME[1:]]}, Reason.NONFINITE),
    "nan gripper": ({"gripper": np.nan}, Reason.NONFINITE),
    "nan duration": ({"duration": np.nan}, Reason.NONFINITE),
    "short": ({"target": HOME[:6]}, Reason.SHAPE),
    "stale": ({"seen": 4.8}, Reason.STALE),
    "from the future": ({"seen": 99.0}, Reason.STALE),
    "old observation": ({"observed": 3.0}, Reason.EXPIRED),
    "misread": ({"fault": Reason.NAMES}, Reason.NAMES),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_command_says_why_and_changes_nothing(name):
    changes, wanted = REFUSALS[name]
    bench, twin = Bench(), Bench()
    for one in (bench, twin):
        one.command(HOME + 0.1)
        one.run(0.05)
    changes = dict(changes)
    target = changes.pop("target", HOME - 0.1)
    assert bench.command(target, **changes) == wanted
    for ours, theirs in zip(bench.run(0.1), twin.run(0.1), strict=True):
        assert np.array_equal(ours.motion.q, theirs.motion.q)


CHANGES = {
    "beyond a stop": (HOME + np.eye(7)[0] * 9, {"delta": 20.0}, Reason.POS_BOX),
    "a jump": (HOME + np.eye(7)[0], {}, Reason.DELTA),
    "into the floor": ([0, 0.8, 0, -1.8, 0, 2.6, 0.78], {"delta": 3.0}, Reason.FLOOR),
    "out of the box": ([0, 1.2, 0, -0.4, 0, 2.2, 0.78], {"delta": 4.0}, Reason.WORKSPACE),
    "into itself": ([0, 0.3, 0, -2.9, 0, 1.0, 0], {"delta": 4.0}, Reason.SELFCOLL),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_command_says_how(name):
    target, settings, wanted = CHANGES[name]
    bench = Bench(**settings)
    reason = bench.command(target)
    assert reason & wanted, names(reason)
    assert not reason & REFUSED and bench.guard.state is State.RUNNING


def test_gripper_commands_are_clamped_and_slowed():
    bench = Bench()
    assert bench.command(gripper=0.5) & Reason.GRIP_RANGE
    bench.command(gripper=0.0)
    outputs = bench.run(0.1)
    steps = np.diff([output.gripper for output in outputs])
    assert np.abs(steps).max() <= 0.1 * DT + 1e-12
    assert outputs[-1].reason & Reason.GRIP_RATE


def test_silence_becomes_a_hold_that_stops_without_moving_on():
    bench = Bench()
    # A wrist that had to go as far would be fast enough to be braked earlier.
    bench.command(HOME + 0.3 * np.array([1, 1, 1, 1, 0.3, 0.3, 0.3]), duration=0.0)
    outputs = bench.run(0.6)
    held = next(i for i, output in enumerate(outputs) if output.state is State.HOLD)
    stopped = next(i for i, output in enumerate(outputs) if i > held and output.motion.still)
    assert 0.2 <= (held + 1) * DT <= 0.202 and outputs[held].reason & Reason.WATCHDOG
    assert (stopped + 1) * DT <= 0.350
    assert np.array_equal(outputs[-1].motion.q, outputs[stopped + 5].motion.q)
    # A fresh command of the same epoch goes on; the old one never runs again.
    assert not bench.command(HOME) & REFUSED and bench.guard.state is State.RUNNING


@pytest.mark.parametrize("limits", [FR3, PANDA], ids=lambda arm: arm.name)
@pytest.mark.parametrize("speed", [0.3, 1.0])
def test_the_arm_stands_in_time_after_the_last_valid_command_however_fast_it_was(limits, speed):
    rng, holds, room = np.random.default_rng(0), [], np.array([1, 0.2, 1, 0.2, 1, 1, 1])
    for _ in range(25):
        bench = Bench(limits, speed=speed, delta=3.0)
        target = HOME + room * rng.uniform(-2, 2, 7)
        for _ in range(rng.integers(2, 9)):
            bench.command(target, duration=rng.uniform(0, 0.066))
            outputs = bench.run(rng.uniform(0.03, 0.067))
        outputs += bench.run(0.5)
        holds.append(next(i for i, output in enumerate(outputs) if output.state is State.HOLD) + 1)
        moving = [i + 1 for i, output in enumerate(outputs) if not output.motion.still]
        assert max(moving, default=0) * DT < 0.34
    assert max(holds) <= 201 and (min(holds) < 200 or limits is PANDA)


def test_many_refused_commands_in_a_row_hold():
    bench = Bench(rejects=5)
    bench.command()
    for _ in range(5):
        bench.command([np.nan] * 7)
    assert bench.guard.state is State.HOLD and bench.guard.why & Reason.REJECTS


@pytest.mark.parametrize("seed", range(2))
def test_no_sequence_of_events_breaks_a_limit_or_leaves_the_workspace(seed):
    """Everything at random: commands good and bad, every event, in any order."""
    rng = np.random.default_rng(seed)
    limits = FR3 if seed % 2 == 0 else PANDA
    bench = Bench(limits, speed=1.0, delta=3.0, rejects=50, observation_age=5.0)
    guard, workspace, epoch = bench.guard, Workspace(), 1
    moving = 0
    for _ in range(80):
        pick = rng.random()
        if pick < 0.75:
            bench.command(
                rng.uniform(limits.stop_min - 0.5, limits.stop_max + 0.5),
                epoch=guard.epoch,
                duration=rng.uniform(0, 0.1),
            )
        elif pick < 0.85:
            bench.command(rng.choice([np.nan, np.inf, 1e300, 0.0], 7), epoch=guard.epoch)
        else:
            event = rng.integers(6)
            (guard.estop, guard.reset, guard.disarm, guard.backend_ended, guard.recover, guard.reset)[event](bench.now)
            bench.run(0.4)
            guard.reset(bench.now)
            epoch += 1
            guard.arm(epoch, guard.motion.q, 1, bench.now)
        before = guard.motion
        for i, output in enumerate(bench.run(rng.choice([0.005, 0.05, 0.15]))):
            after = output.motion
            assert np.isfinite(after.q).all()
            assert (after.q <= limits.q_max + 1e-9).all() and (after.q >= limits.q_min - 1e-9).all()
            assert (after.v <= np.maximum(limits.v_high(after.q), 0) + 1e-9).all()
            assert (after.v >= np.minimum(limits.v_low(after.q), 0) - 1e-9).all()
            assert (np.abs(after.a) <= limits.a_max + 1e-9).all()
            assert (np.abs(after.a - before.a) <= limits.j_max * DT + 1e-9).all()
            before = after
            moving += not after.still
            if not i % 10:
                assert workspace.margins(after.q).min() >= 0.0
    assert moving > 500


def test_nonsense_settings_are_refused():
    with pytest.raises(InputError, match="stopping_within"):
        Guard(FR3, Settings(stop=0.1))
    with pytest.raises(InputError, match="speed"):
        Guard(FR3, Settings(speed=0.0))
    with pytest.raises(InputError, match="half-spaces"):
        Workspace(half_spaces=((0, 0, 0, 1),))


BORDER = Reason.WORKSPACE | Reason.FLOOR | Reason.SELFCOLL


@pytest.mark.parametrize("arm", [FR3, PANDA], ids=lambda arm: arm.name)
def test_what_is_changed_has_a_reason(arm):
    """A target, a duration or a width that is not as it was asked; and every millisecond that is not the follower's own."""
    rng, borders, slowed = np.random.default_rng(0), 0, 0
    bench = Bench(arm, workspace=Workspace((-0.3, -0.35, 0.0), (0.7, 0.35, 0.95)), speed=1.0)
    guard = bench.guard
    for _ in range(40):
        target, duration = guard.motion.q + rng.uniform(-0.6, 0.6, 7), rng.choice([-0.1, 0.0, 0.05, 0.2, 0.21, 5.0])
        width = rng.choice([None, -0.01, 0.0, 0.05, 0.2])
        reason = bench.command(target, duration=duration, gripper=width)
        assert not reason & REFUSED
        asked = (target.tolist(), duration, guard._grip_target if width is None else width)
        if asked != (guard._target.tolist(), guard._duration, guard._grip_target):
            assert reason, "the command was changed without a word"
        assert bool(reason & Reason.DURATION) == (guard._duration != duration)
        for _ in range(66):
            before, wish = guard.motion, guard._wish(bench.now + DT)
            free, _ = guard.limiter.step(before, wish)
            output = bench.run(DT)[0]
            assert output.state is State.RUNNING
            if output.motion.q.tolist() != free.q.tolist():
                borders += 1
                assert output.reason & BORDER, names(output.reason)
            # The law that the limiter follows, without limits: this speed at once.
            size = np.abs(wish - before.q)
            law = np.copysign(
                np.minimum(40.0 * size, np.sqrt(1.4 * guard.limiter.acceleration * size)), wish - before.q
            )
            if np.abs(output.motion.v - law).max() > 1e-9:
                slowed += 1
                assert output.reason & (Reason.VEL | Reason.ACC | Reason.JERK | BORDER), names(output.reason)
            if abs(output.gripper - guard._grip_target) > 1e-12:
                assert output.reason & Reason.GRIP_RATE
    assert borders > 10 and slowed > 1000
