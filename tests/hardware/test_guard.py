"""The guard: no input moves the arm outside its limits, every change has a reason, and what stopped stays stopped."""

import numpy as np
import pytest
from robopref.hardware import command as wire
from robopref.hardware.command import Command
from robopref.hardware.guard import Guard, Settings
from robopref.hardware.limits import DT, FR3, PANDA
from robopref.hardware.reasons import REFUSED, Reason, State, names
from robopref.hardware.workspace import Workspace

from robopref.arrays import InputError

HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


class Bench:
    """A guard with a clock."""

    def __init__(self, limits=FR3, armed=True, **settings):
        self.guard, self.now, self.seq = Guard(limits, Settings(**settings)), 5.0, 0
        self.guard.link(True, self.now)
        self.guard.follow(HOME)
        if armed:
            assert self.guard.arm(1, HOME, 1, self.now) == Reason.NONE

    def command(self, target=HOME, **changes):
        self.seq += 1
        given = {"epoch": 1, "seq": self.seq, "seen": self.now - 0.01, "observed": self.now - 0.05} | changes
        return self.guard.receive(Command(target=np.asarray(target, dtype=float), **given), self.now)

    def run(self, seconds):
        outputs = []
        for _ in range(round(seconds / DT)):
            self.now += DT
            outputs.append(self.guard.tick(self.now))
        return outputs


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


def test_the_stop_is_latched():
    bench = Bench()
    bench.command(HOME + 0.2)
    bench.run(0.1)
    bench.guard.estop(bench.now)
    assert not bench.guard.reset(bench.now), "still moving"
    bench.run(0.5)
    assert bench.command() == Reason.NOT_ARMED
    assert bench.guard.arm(7, HOME, 1, bench.now) == Reason.NOT_ARMED
    assert bench.guard.reset(bench.now) and bench.guard.state is State.IDLE
    assert bench.command() == Reason.NOT_ARMED, "a reset alone does not arm"
    assert bench.guard.arm(1, HOME, 1, bench.now) == Reason.EPOCH, "an epoch is used once"
    assert bench.guard.arm(2, HOME, 1, bench.now) == Reason.NONE


def test_what_only_arming_ends_is_not_ended_by_a_command():
    bench = Bench()
    bench.command()
    bench.guard.backend_ended(bench.now)
    bench.run(0.5)
    assert bench.command() == Reason.NOT_ARMED and bench.guard.state is State.HOLD
    assert bench.guard.arm(2, bench.guard.motion.q, 1, bench.now) == Reason.NONE


def test_recoveries_are_bounded():
    bench = Bench(recoveries=2)
    for _ in range(2):
        bench.guard.robot_mode(4, bench.now)
        assert bench.guard.state is State.REFLEX and bench.command() == Reason.NOT_ARMED
        assert bench.guard.recover(bench.now)
        bench.guard.recovered(True, bench.now)
        assert bench.guard.state is State.IDLE
    bench.guard.robot_mode(4, bench.now)
    assert not bench.guard.recover(bench.now) and bench.guard.state is State.ESTOP
    assert bench.guard.why & Reason.REFLEX


def test_a_deadman_button_must_be_held():
    bench = Bench(deadman=True)
    assert bench.command() == Reason.NOT_ARMED
    bench.guard.deadman(True, bench.now)
    assert not bench.command() & REFUSED
    bench.guard.deadman(False, bench.now)
    assert bench.guard.state is State.HOLD and bench.guard.why & Reason.DEADMAN


def test_a_lost_robot_must_be_armed_again():
    bench = Bench()
    bench.command()
    bench.guard.link(False, bench.now)
    assert bench.guard.state is State.DISCONNECTED and bench.command() == Reason.NOT_ARMED
    bench.guard.link(True, bench.now)
    assert bench.guard.state is State.IDLE and bench.command() == Reason.NOT_ARMED


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


def test_a_command_survives_its_message():
    command = Command(3, 1207, 12.345678, 12.3, 4, 88, HOME, 0.04, 0.066)
    told = wire.message(command)
    again = wire.read(told["header"]["frame_id"], told["joint_names"], told["points"])
    assert (again.epoch, again.seq, again.step, again.chunk, again.gripper) == (3, 1207, 4, 88, 0.04)
    assert again.seen == pytest.approx(command.seen, abs=1e-6)
    np.testing.assert_allclose(again.target, HOME, rtol=0, atol=0.5001e-9)  # sent in billionths of a radian
    assert again.duration == pytest.approx(0.066) and again.fault == Reason.NONE


HEAD = wire.header(1, 1, 4.99, 4.95)
GOOD = f"{HEAD} k={wire.checksum(HEAD, np.zeros(7), 0.0)}"
NULLS = f"{HEAD} k={wire.checksum(HEAD, np.full(7, np.nan), 0.0)}"
MESSAGES = {
    "no header": ("", None, None, Reason.EPOCH),
    "other protocol": ("rp2 e=1 s=1 t=1 o=1 n=0 c=0", None, None, Reason.EPOCH),
    "header with tail": ("rp1 e=1 s=1 t=1 o=1 n=0 c=0 k=00000000 x", None, None, Reason.EPOCH),
    "no checksum": ("rp1 e=1 s=1 t=1 o=1 n=0 c=0", None, None, Reason.EPOCH),
    "another epoch": (GOOD.replace("e=1", "e=2"), None, None, Reason.DAMAGED),
    "another position": (None, None, [{"positions": [0.0] * 6 + [0.1]}], Reason.DAMAGED),
    "another duration": (None, None, [{"positions": [0.0] * 7, "time_from_start": {"sec": 1}}], Reason.DAMAGED),
    "names": (None, ["a"] * 7, None, Reason.NAMES),
    "two points": (None, None, [{"positions": [0.0] * 7}] * 2, Reason.SHAPE),
    "no point": (None, None, [], Reason.SHAPE),
    "short": (None, None, [{"positions": [0.0] * 6}], Reason.SHAPE),
    "text": (None, None, [{"positions": ["0"] * 7}], Reason.DTYPE),
    "text for all": (None, None, [{"positions": "0000000"}], Reason.DTYPE),
    "null": (NULLS, None, [{"positions": [None] * 7}], Reason.NONE),
    "huge": (None, None, [{"positions": [10**400] * 7}], Reason.NONFINITE),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_bad_message_becomes_a_fault_and_never_an_exception(name):
    frame, joints, points, wanted = MESSAGES[name]
    read = wire.read(
        GOOD if frame is None else frame,
        joints or wire.joint_names("fr3"),
        [{"positions": [0.0] * 7}] if points is None else points,
    )
    assert read.fault == wanted
    assert Bench().guard.receive(read, 5.0) & REFUSED


def test_a_command_survives_the_neighbours_of_its_numbers():
    rng, names = np.random.default_rng(0), wire.joint_names("fr3")
    for number in range(200):
        sent = wire.message(wire.Command(1, number, 1.0, 1.0, target=rng.uniform(-3, 3, 7), duration=1 / 15))
        positions = np.array(sent["points"][0]["positions"])
        for way in (-np.inf, np.inf):
            moved = {**sent["points"][0], "positions": np.nextafter(positions, way).tolist()}
            assert wire.read(sent["header"]["frame_id"], names, [moved]).fault == 0
        changed = {**sent["points"][0], "positions": (positions + 1e-9).tolist()}
        assert wire.read(sent["header"]["frame_id"], names, [changed]).fault == Reason.DAMAGED


def test_nonsense_settings_are_refused():
    with pytest.raises(InputError, match="stopping_within"):
        Guard(FR3, Settings(stop=0.1))
    with pytest.raises(InputError, match="speed"):
        Guard(FR3, Settings(speed=0.0))
    with pytest.raises(InputError, match="half-spaces"):
        Workspace(half_spaces=((0, 0, 0, 1),))
