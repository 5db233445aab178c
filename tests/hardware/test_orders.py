"""Who stops the arm, who may set it in motion again, and what outlives a lost link."""

import pytest
from robopref.hardware.reasons import REFUSED, Reason, State
from robopref.hardware.testing.bench import HOME, Bench


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


def test_a_lost_robot_must_be_armed_again():
    bench = Bench()
    bench.command()
    bench.guard.link(False, bench.now)
    assert bench.guard.state is State.DISCONNECTED and bench.command() == Reason.NOT_ARMED
    bench.guard.link(True, bench.now)
    assert bench.guard.state is State.IDLE and bench.command() == Reason.NOT_ARMED


def flap(bench):
    """The link is lost and comes back."""
    bench.guard.link(False, bench.now)
    bench.run(0.3)
    bench.guard.link(True, bench.now)


def test_a_latched_stop_outlives_the_link():
    bench = Bench()
    bench.command(HOME + 0.2)
    bench.run(0.1)
    bench.guard.estop(bench.now)
    bench.guard.link(False, bench.now)
    assert bench.guard.state is State.DISCONNECTED and bench.guard.why & Reason.ESTOP
    assert not bench.guard.reset(bench.now), "nobody sees whether it stands"
    bench.run(0.5)
    bench.guard.link(True, bench.now)
    assert bench.guard.state is State.ESTOP and bench.guard.why == Reason.ESTOP
    assert bench.guard.arm(2, HOME, 1, bench.now) == Reason.NOT_ARMED
    assert bench.guard.reset(bench.now) and not bench.guard.latched
    assert bench.guard.arm(2, HOME, 1, bench.now) == Reason.NONE


def test_a_stop_in_the_dark_is_latched_when_the_link_is_back():
    bench = Bench()
    bench.guard.link(False, bench.now)
    bench.guard.estop(bench.now)
    assert bench.guard.state is State.DISCONNECTED and bench.guard.latched
    bench.guard.link(True, bench.now)
    assert bench.guard.state is State.ESTOP


@pytest.mark.parametrize("mode", [5, 4])
def test_the_arms_own_stops_are_latched_over_the_link_too(mode):
    bench = Bench(recoveries=0)
    bench.guard.robot_mode(mode, bench.now)
    bench.guard.recover(bench.now)
    flap(bench)
    assert bench.guard.state is State.ESTOP and bench.guard.why & (Reason.REFLEX | Reason.OPERATOR)


def test_only_a_person_arms_again_after_a_person():
    def disarmed(bench):
        bench.guard.disarm(bench.now)

    def cleared(bench):
        bench.guard.estop(bench.now)
        bench.run(0.5)
        assert bench.guard.reset(bench.now)

    def ended_too(bench):
        bench.guard.disarm(bench.now)
        bench.guard.backend_ended(bench.now)

    def while_recovering(bench):
        bench.guard.robot_mode(4, bench.now)
        assert bench.guard.recover(bench.now)
        bench.guard.disarm(bench.now)
        bench.guard.recovered(True, bench.now)

    for stop in (disarmed, cleared, ended_too, while_recovering):
        for flaps in (0, 2):
            bench = Bench()
            bench.command()
            stop(bench)
            for _ in range(flaps):
                flap(bench)
            bench.run(0.5)
            assert bench.guard.why & Reason.OPERATOR, (stop.__name__, flaps)
            assert bench.guard.arm(2, HOME, 1, bench.now, asked=False) & REFUSED
            assert bench.guard.arm(2, HOME, 1, bench.now) == Reason.NONE and not bench.guard.why


@pytest.mark.parametrize("end", ["watchdog", "backend", "program", "link", "start"])
def test_a_program_arms_again_after_what_no_person_did(end):
    bench = Bench(armed=end != "start")
    bench.command()
    if end == "backend":
        bench.guard.backend_ended(bench.now)
    elif end == "program":
        bench.guard.disarm(bench.now, asked=False)
    elif end == "link":
        flap(bench)
    bench.run(0.5)
    assert bench.guard.arm(2, HOME, 1, bench.now, asked=False) == Reason.NONE


def test_a_deadman_button_must_be_held_and_said_to_be():
    bench = Bench(deadman=True, heartbeat=0.3)
    assert bench.command() == Reason.NOT_ARMED | Reason.DEADMAN
    bench.guard.deadman(True, bench.now)
    assert not bench.command(HOME + 0.1) & REFUSED
    for _ in range(10):
        bench.run(0.1)
        bench.guard.deadman(True, bench.now)
        assert not bench.command(HOME + 0.1) & REFUSED and bench.guard.state is State.RUNNING
    bench.guard.deadman(False, bench.now)
    assert bench.guard.state is State.HOLD and bench.guard.why & Reason.DEADMAN
    bench.guard.deadman(True, bench.now)
    assert not bench.command() & REFUSED and bench.guard.state is State.RUNNING


def test_a_heartbeat_that_ends_holds_although_nobody_let_go():
    bench = Bench(deadman=True, heartbeat=0.3)
    bench.guard.deadman(True, bench.now)
    begin, state = bench.now, State.RUNNING
    while state is State.RUNNING and bench.now < begin + 1.0:
        assert not bench.command(HOME + 0.1) & REFUSED
        state = bench.run(0.01)[-1].state
    assert state is State.HOLD and bench.guard.why & Reason.DEADMAN and 0.29 < bench.now - begin < 0.32
    assert bench.command() & Reason.DEADMAN
    bench.guard.deadman(True, bench.now, seen=bench.now - 0.5)
    assert bench.command() & Reason.DEADMAN, "word that the bridge kept back is no word"
    bench.guard.deadman(True, bench.now, seen=bench.now - 0.05)
    assert not bench.command() & REFUSED


def test_the_hand_stays_where_it_was_stopped():
    bench = Bench()
    bench.command(gripper=0.0)
    bench.run(0.1)
    bench.guard.hand(0.05)
    assert bench.guard.gripper < 0.075, "while commands run the measured width changes nothing"
    bench.guard.estop(bench.now)
    bench.guard.hand(0.05)
    bench.run(0.5)
    bench.guard.reset(bench.now)
    bench.guard.arm(2, HOME, 1, bench.now)
    bench.command(epoch=2)
    assert bench.run(0.1)[-1].gripper == 0.05
