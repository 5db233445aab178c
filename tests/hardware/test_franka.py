"""The arm node: against a made-up arm for what a simulator does not do, and against the Franka protocol simulator."""

import asyncio
import threading
import time
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
from robopref.hardware.command import Command
from robopref.hardware.controls import Controls
from robopref.hardware.franka import ArmNode, ArmState, BackendError, FrankaBackend, control
from robopref.hardware.guard import Guard, Settings
from robopref.hardware.journal import Journal, replay
from robopref.hardware.latch import Latch, place
from robopref.hardware.limits import FR3, PANDA
from robopref.hardware.reasons import Reason, State
from robopref.hardware.rosbridge import RosBridge
from robopref.hardware.testing import processes
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.testing.rig import BridgeTransport

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
        self.fingers, self.moving, self.broken_hand = 0.08, threading.Event(), False

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
        """A slow hand: it moves until it is there, or stopped."""
        if self.broken_hand:
            raise BackendError("gripper: no")
        self.moving.set()
        while self.fingers != width and self.moving.is_set():
            self.fingers += np.clip(width - self.fingers, -0.001, 0.001)
            time.sleep(0.01)

    def release(self):
        self.moving.clear()

    def width(self):
        return self.fingers


class Rig:
    """A node whose clock is ours."""

    def __init__(self, journal=None, latch=None, **settings):
        self.arm, self.wires, self.guard = MadeUpArm(), Wires(), Guard(FR3, Settings(**settings))
        self.node = ArmNode(
            self.guard, self.arm, self.wires, Journal(self.guard, journal), latch=latch and Latch(latch)
        )
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


def test_a_latched_stop_outlives_the_link_and_the_process(tmp_path):
    path = tmp_path / "state/estop"
    rig = Rig(latch=path)
    rig.arms()
    rig.wires.orders.append({"op": "estop"})
    rig.run(0.3)
    assert rig.guard.state is State.ESTOP and path.exists()
    rig.arm.up = False
    rig.run(0.05)
    rig.arm.up = True
    rig.run(0.7)
    rig.arms(2)
    assert rig.guard.state is State.ESTOP
    again = Rig(latch=path)
    again.run(0.05)
    again.arms(1)
    assert again.guard.state is State.ESTOP, "another process, the same stop"
    again.wires.orders.append({"op": "reset"})
    again.run(0.05)
    assert again.guard.state is State.IDLE and not path.exists()
    again.wires.orders.append({"op": "arm", "epoch": 2, "by": "program"})
    again.run(0.05)
    assert again.guard.state is State.IDLE and not again.arm.loop
    again.arms(2)
    assert again.guard.state is State.ARMED
    fresh = Rig(latch=path)
    fresh.run(0.05)
    assert fresh.guard.state is State.IDLE
    assert place("fe80::1/x").name == "fe80__1_x.estop"


def test_a_stop_while_the_arm_is_out_of_reach_is_heard():
    rig = Rig()
    rig.arm.up = False
    rig.wires.orders.append({"op": "estop"})
    rig.run(0.05)
    rig.arm.up = True
    rig.run(0.7)
    assert rig.guard.state is State.ESTOP


def test_a_disk_that_refuses_the_latch_stops_all_the_same(tmp_path):
    (tmp_path / "file").write_text("")
    rig = Rig(latch=tmp_path / "file/estop")
    rig.wires.orders.append({"op": "estop"})
    rig.run(0.1)
    assert rig.guard.state is State.ESTOP and "file" in rig.wires.statuses[-1]["latch"]


def test_no_flood_of_orders_pushes_a_stop_out():
    for before, after in ((0, 200), (200, 0), (100, 100)):
        controls = Controls()
        for order in [{"op": "disarm"}] * before + [{"op": "estop"}] + [{"op": "arm", "epoch": 3}] * after:
            controls.put(order)
        taken = controls.take()
        assert taken[0] == {"op": "estop"} and len(taken) <= 16 and controls.take() == []
        assert controls.dropped == max(before - 16, 0) + max(after - 15, 0)


def test_the_topics_of_the_node_keep_a_stop_among_many_orders():
    async def run():
        async with BridgeServer() as server, RosBridge(server.url) as bridge:
            transport = BridgeTransport(bridge)
            for text in ['{"op": "estop"}', *['{"op": "disarm"}'] * 40]:
                transport._control({"data": text})
            assert {"op": "estop"} in transport.controls()
            transport._estop({})
            for _ in range(40):
                transport._control({"data": '{"op": "disarm"}'})
            assert {"op": "estop"} in transport.controls()

    asyncio.run(run())


def test_a_stop_stops_a_closing_hand_and_the_measured_width_is_told():
    rig = Rig()
    rig.arms()
    for _ in range(30):
        rig.seq += 1
        rig.wires.inbox.append(Command(1, rig.seq, rig.now, rig.now, target=HOME, gripper=0.0, duration=0.05))
        rig.run(0.05)
        time.sleep(0.01)
        if rig.arm.fingers < 0.06:
            break
    assert rig.arm.fingers < 0.075
    rig.wires.orders.append({"op": "estop"})
    rig.run(0.02)
    until(lambda: not rig.arm.moving.is_set())
    stopped = rig.arm.fingers
    assert stopped > 0.01
    for _ in range(30):
        rig.run(0.02)
        time.sleep(0.01)
    assert rig.arm.fingers == pytest.approx(stopped, abs=0.002)
    status = rig.wires.statuses[-1]
    assert status["width"] == rig.arm.fingers == status["gripper"] and status["gripper_errors"] == 0
    stopped = rig.arm.fingers
    rig.wires.orders.append({"op": "reset"})
    rig.arms(2)
    rig.command(HOME, epoch=2)
    rig.run(0.1)
    time.sleep(0.05)
    assert rig.guard.state is State.RUNNING and rig.arm.fingers == stopped, "arming moves no finger"


def test_what_goes_wrong_with_the_gripper_is_told():
    rig = Rig()
    rig.arm.broken_hand = True
    rig.arms()
    for _ in range(20):
        rig.seq += 1
        rig.wires.inbox.append(Command(1, rig.seq, rig.now, rig.now, target=HOME, gripper=0.0, duration=0.05))
        rig.run(0.05)
        time.sleep(0.002)
    assert rig.wires.statuses[-1]["gripper_errors"] > 0 and rig.wires.statuses[-1]["gripper_error"] == "gripper: no"
    assert rig.guard.state is State.RUNNING


def test_reasons_are_counted_by_command_and_by_millisecond():
    rig = Rig()
    rig.arms()
    rig.command(HOME + 9.0)
    rig.run(0.05)
    rig.command(HOME, epoch=5)
    rig.run(0.05)
    status = rig.wires.statuses[-1]
    assert status["bits"]["EPOCH"] == 1 and status["bits"]["POS_BOX"] == 1 and status["bits"]["DELTA"] == 1
    assert status["held"]["JERK"] > 10


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


@pytest.mark.parametrize("arm", [FR3, PANDA], ids=lambda arm: arm.name)
def test_no_place_is_handed_on_at_which_the_loop_below_would_end(arm):
    pytest.importorskip("franka")
    backend, told = FrankaBackend("nowhere", arm), []
    backend._loop = SimpleNamespace(move_to=told.append, running=True)
    for q in (arm.q_min - 1.0, arm.stop_min + 0.045, HOME, arm.stop_max, arm.q_max + 1.0):
        backend.move_to(q)
    # franka-rs refuses what is less than 0.05 rad inside the limits, and its loop ends there.
    assert all((q > arm.q_min + 0.05).all() and (q < arm.q_max - 0.05).all() for q in told)
    assert np.array_equal(told[2], HOME)


@pytest.fixture
def live(simulator):
    """A node on the simulator, cycling in real time."""
    wires, guard = Wires(), Guard(FR3, Settings(speed=0.3))
    backend = FrankaBackend("127.0.0.1", realtime="ignore")
    node = ArmNode(guard, backend, wires)
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
    until(lambda: wires.statuses[-1]["width"] == pytest.approx(0.04, abs=1e-3))  # what lies between its fingers
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
