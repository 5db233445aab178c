"""The arm node: against a made-up arm for what a simulator does not do, and against the Franka protocol simulator."""

import time
from collections import deque

import numpy as np
import pytest
from robopref.hardware.command import Command
from robopref.hardware.franka import ArmNode, ArmState, BackendError, FrankaBackend, control
from robopref.hardware.guard import Guard, Settings
from robopref.hardware.journal import Journal, replay
from robopref.hardware.limits import FR3
from robopref.hardware.reasons import Reason, State
from robopref.hardware.testing import processes

HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


class Wires:
    """A transport without a network."""

    def __init__(self):
        self.inbox, self.orders, self.states, self.statuses = deque(), deque(), deque(maxlen=5000), deque(maxlen=5000)

    def commands(self):
        return [self.inbox.popleft() for _ in range(len(self.inbox))]

    def controls(self):
        return [self.orders.popleft() for _ in range(len(self.orders))]

    def publish(self, now, state, status):
        self.states.append((now, state))
        if status is not None:
            self.statuses.append(status)


class MadeUpArm:
    """An arm that is where it is told to be, until it is told to fail."""

    def __init__(self):
        self.q, self.mode, self.up, self.loop, self.fail_recovery = HOME.copy(), 1, True, False, False

    def connect(self):
        if not self.up:
            raise BackendError("unreachable")

    def state(self):
        self.connect()
        return ArmState(self.q.copy(), np.zeros(7), np.zeros(7), self.mode)

    def start(self):
        self.loop = True

    def move_to(self, q):
        self.q = q.copy()

    def running(self):
        return self.loop

    def stop(self):
        self.loop = False

    close = stop

    def recover(self):
        if self.fail_recovery:
            raise BackendError("no")
        self.mode = 1

    def grip(self, width):
        self.width = width


class Rig:
    """A node whose clock is ours."""

    def __init__(self, journal=None, **settings):
        self.arm, self.wires, self.guard = MadeUpArm(), Wires(), Guard(FR3, Settings(**settings))
        self.node = ArmNode(self.guard, self.arm, self.wires, Journal(self.guard, journal))
        self.now = self.node._time
        self.seq = 0

    def run(self, seconds):
        for _ in range(round(seconds / 0.01)):
            self.now += 0.01
            self.node.cycle(self.now)

    def arms(self, epoch=1):
        self.wires.orders.append({"op": "arm", "epoch": epoch})
        self.run(0.02)

    def command(self, target, epoch=1):
        self.seq += 1
        self.wires.inbox.append(Command(epoch, self.seq, self.now, self.now, target=target, duration=0.05))


def test_a_command_moves_the_arm_and_silence_stops_it():
    rig = Rig()
    rig.run(0.05)
    assert rig.guard.state is State.IDLE
    rig.arms()
    assert rig.guard.state is State.ARMED and rig.arm.loop
    for _ in range(20):
        rig.command(HOME + 0.1)
        rig.run(0.05)
    assert np.allclose(rig.arm.q, HOME + 0.1, atol=1e-3) and rig.guard.state is State.RUNNING
    rig.run(0.3)
    assert rig.guard.state is State.HOLD and rig.wires.statuses[-1]["why"] == ["WATCHDOG"]


def test_an_ended_loop_holds_until_armed_and_starts_anew():
    rig = Rig()
    rig.arms()
    rig.command(HOME)
    rig.run(0.02)
    rig.arm.loop = False
    rig.run(0.05)
    assert rig.guard.state is State.HOLD and rig.guard.why & Reason.BACKEND_ENDED
    assert rig.node.counts.loops_ended == 1
    rig.arm.q = HOME + 0.02
    rig.arms(2)
    assert rig.guard.state is State.ARMED and rig.arm.loop
    assert np.allclose(rig.guard.motion.q, HOME + 0.02), "armed where the arm is"


def test_a_reflex_is_recovered_from_a_bounded_number_of_times():
    rig = Rig(recoveries=1)
    rig.arms()
    rig.arm.mode = 4
    rig.run(0.05)
    time.sleep(0.05)
    rig.run(0.05)
    assert rig.guard.state is State.IDLE and rig.node.counts.reflexes == 1
    rig.arms(2)
    rig.arm.mode = 4
    rig.run(0.05)
    assert rig.guard.state is State.ESTOP


def test_a_lost_arm_is_found_again_but_not_armed():
    rig = Rig()
    rig.arms()
    rig.arm.up = False
    rig.run(0.05)
    assert rig.guard.state is State.DISCONNECTED
    rig.arm.up = True
    rig.run(0.7)
    assert rig.guard.state is State.IDLE


def test_a_stall_of_the_node_is_not_made_up_for_in_one_leap():
    rig = Rig()
    rig.arms()
    rig.command(HOME + 0.3)
    rig.run(0.05)
    before = rig.arm.q.copy()
    rig.now += 0.5
    rig.node.cycle(rig.now)
    assert rig.node.counts.stalls == 1 and np.abs(rig.arm.q - before).max() < 0.05
    assert rig.guard.state is State.HOLD


def test_a_journal_replays_bit_for_bit_and_notices_a_changed_bit(tmp_path):
    rig, rng = Rig(tmp_path / "journal"), np.random.default_rng(0)
    rig.arms()
    for number in range(30):
        rig.command(HOME + rng.normal(size=7) * (0.1 if number % 3 else np.nan))
        rig.run(0.05)
        if number == 20:
            rig.wires.orders.append({"op": "estop"})
            rig.run(0.5)
            rig.wires.orders.append({"op": "reset"})
            rig.arms(2)
    rig.node._journal.close()
    lines = (tmp_path / "journal").read_text().splitlines()
    assert replay(tmp_path / "journal", Guard(FR3, Settings())) == (len(lines), "")
    (tmp_path / "torn").write_text("\n".join(lines)[:-40])
    assert replay(tmp_path / "torn", Guard(FR3, Settings())) == (len(lines) - 1, "")
    assert replay(tmp_path / "journal", Guard(FR3, Settings(speed=0.31)))[1] != ""


@pytest.mark.parametrize("text", ["", "[]", "{", "3", '{"op"', "x" * 2000, "[" * 900])
def test_a_broken_control_message_is_nothing(text):
    assert control(text) == {}


@pytest.fixture
def live(simulator):
    """A node on the simulator, cycling in real time."""
    wires, guard = Wires(), Guard(FR3, Settings(speed=0.3))
    backend = FrankaBackend("127.0.0.1", realtime="ignore")
    node = ArmNode(guard, backend, wires)
    import threading

    thread = threading.Thread(target=node.run)
    thread.start()
    yield node, wires
    node.stop()
    thread.join(5)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.005)


def test_the_simulated_arm_goes_where_it_is_told_and_stops_by_itself(live):
    node, wires = live
    until(lambda: node.guard.state is State.IDLE)
    epoch = node.guard.epoch + 1
    wires.orders.append({"op": "arm", "epoch": epoch})
    until(lambda: node.guard.state is State.ARMED)
    start = node.guard.motion.q.copy()
    goal = start + 0.15 * np.array([1, 1, -1, -0.5, 1, 1, 1])
    for number in range(600):  # it takes three seconds where the machine has them
        now = time.monotonic()
        wires.inbox.append(Command(epoch, number, now, now, target=goal, gripper=0.02, duration=0.05))
        time.sleep(0.05)
        measured = wires.states[-1][1]
        if np.abs(measured.q - goal).max() < 0.02:
            break
    assert np.abs(measured.q - goal).max() < 0.02, measured.q - goal
    assert node.counts.reflexes == 0 and node.counts.loops_ended == 0 and measured.mode == 2
    until(lambda: node.guard.state is State.HOLD)
    time.sleep(0.3)
    assert wires.statuses[-1]["why"] == ["WATCHDOG"]
    assert np.abs(wires.states[-1][1].dq).max() < 0.1


def test_a_restarted_simulator_is_found_again(live, simulator):
    node, wires = live
    until(lambda: node.guard.state is State.IDLE)
    wires.orders.append({"op": "arm", "epoch": 1})
    until(lambda: node.guard.state is State.ARMED)
    simulator.kill()
    until(lambda: node.guard.state in (State.DISCONNECTED, State.HOLD))
    simulator.start()
    simulator.wait_for_port(processes.FCI_PORT)
    until(lambda: node.guard.state is State.IDLE or bool(node.guard.why & Reason.BACKEND_ENDED))
    wires.orders.append({"op": "arm", "epoch": 2})
    until(lambda: node.guard.state is State.ARMED)
