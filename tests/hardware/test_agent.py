"""The whole chain in one process: agent, policy server with a real diffusion policy, bridge, guard, a made-up arm; and its faults."""

import asyncio
import contextlib
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from robopref.hardware.action_spaces import ActionSpace
from robopref.hardware.agent import Agent, AgentSettings
from robopref.hardware.arm_reach import HOME, goal_of, observe
from robopref.hardware.guard import Settings
from robopref.hardware.inference import Inference
from robopref.hardware.packing import PackingError
from robopref.hardware.policy_client import PolicyClient, chunk_of, metadata_of, reply_of
from robopref.hardware.policy_server import PolicyServer
from robopref.hardware.reasons import Reason, State
from robopref.hardware.recorder import FINISHED, PARTIAL, Recorder, assemble, propose_pairs, read, trajectory
from robopref.hardware.rosbridge import RosBridge
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.testing.rig import KinematicArm, arm_node, camera

from robopref.data.store import TrajectoryStore
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims

GOAL = goal_of(3)
# A crowded machine is slow, not wrong: what is tested here is order and state; latencies are measured by the benchmark.
PATIENT = AgentSettings(hz=15, observation_age=1.0, adopt_age=1.0, patience=5.0)
LENIENT = Settings(age=1.0, watchdog=0.5, observation_age=3.0)


def policy(horizon=16):
    torch.manual_seed(0)
    made = Diffusion(Dims(13, 7), horizon=horizon, execute=horizon // 2, width=32, depth=1, sample_steps=4)
    made.normalizer.fit(torch.randn(60, 13), torch.rand(60, 7) * 2 - 1)
    return made.eval()


@contextlib.asynccontextmanager
async def chain(record=None, settings=PATIENT, guard=LENIENT, pictures=False):
    """(agent, node, server, policy server) of a running chain."""
    async with (
        BridgeServer() as server,
        PolicyServer(Inference(policy(), "hash")) as policies,
        arm_node(server.url, KinematicArm(), guard) as node,
        RosBridge(server.url) as bridge,
        PolicyClient(policies.url) as client,
    ):
        agent = Agent(bridge, client, lambda q: observe(q, GOAL), ActionSpace(), settings, record=record)
        agent.start()
        tasks = [asyncio.create_task(camera(bridge, lambda: node.guard.motion.q, GOAL, 5, 48))] if pictures else []
        tasks.append(asyncio.create_task(agent.run()))
        try:
            yield agent, node, server, policies
        finally:
            for task in tasks:
                if task.done():
                    task.result()  # neither ends by itself
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.01)


def test_the_agent_arms_moves_and_records_what_a_labeller_opens(tmp_path):
    recorder = Recorder(tmp_path / "episodes")

    async def run():
        async with chain(recorder, pictures=True) as (agent, node, _server, _policies):
            await until(lambda: node.guard.state is State.RUNNING)
            for number in range(2):
                recorder.begin(task="arm-reach", seed=number, policy_hash="hash")
                before = agent.tally.commands
                await until(lambda before=before: agent.tally.commands > before + 25)
                recorder.end(success=number == 1)
            assert np.abs(node.guard.motion.q).max() > 0
            assert node.counts.commands > 40 and agent.tally.bad_replies == 0

    asyncio.run(run())
    recorder.close()
    assert assemble(tmp_path / "episodes", tmp_path / "store", 15) == 2
    store = TrajectoryStore(tmp_path / "store")
    assert len(store) == 2
    first = store[1]
    assert first.succeeded and first.chunk is not None and first.executed.any()
    ran = first.extra["safety.masked"][:, 0] == 0
    assert 0 < first.executed.sum() <= ran.sum(), "what ran while held is not marked executed"
    assert (tmp_path / "store/meta/preferences/candidates.json").exists()


def test_the_arm_drives_home_by_command_and_its_episode_begins_with_the_first_chunk(tmp_path):
    recorder, home = Recorder(tmp_path), HOME + 0.2

    async def run():
        async with chain(recorder) as (agent, node, _server, _policies):
            await until(lambda: node.guard.state is State.RUNNING)
            for number in range(2):
                agent.go_home(home)
                await until(lambda: np.abs(node.guard.motion.q - home).max() < 0.01)
                chunks = len(agent.tally.adopted_ages)
                await asyncio.sleep(0.4)
                assert len(agent.tally.adopted_ages) <= chunks + 1, "nobody asks the policy meanwhile"
                assert np.abs(node.guard.motion.q - home).max() < 0.01
                recorder.begin(task="arm-reach", seed=number)
                agent.go_on()
                before = len(agent.tally.adopted_ages)
                await until(lambda before=before: len(agent.tally.adopted_ages) > before + 3)
                recorder.end(False)

    asyncio.run(run())
    recorder.close()
    for path in sorted(tmp_path.glob(f"*{FINISHED}")):
        one = trajectory(path)
        asked = np.flatnonzero(one.executed.any(axis=1))
        assert np.abs(one.observation[0, :7] - home).max() < 0.02
        assert (np.abs(one.chunk[asked]).min(axis=2) > 0).all(), "the whole prediction is kept, also what never ran"
        if (one.extra["safety.masked"][asked[0] + 3 :] == 0).all():  # a crowded machine may hold the arm on the way
            assert asked[0] == 0, "what was seen before the first action belongs to its chunk"


def test_a_lost_policy_server_ends_in_a_hold_and_the_chain_goes_on_when_it_is_back():
    async def run():
        async with chain() as (_agent, node, _server, policies):
            await until(lambda: node.guard.state is State.RUNNING)
            policies.inference.answer = lambda requests: time.sleep(4) or [np.zeros((16, 7))] * len(requests)
            await until(lambda: node.guard.state is State.HOLD)
            assert "WATCHDOG" in [bit.name for bit in type(node.guard.why)(node.guard.why)]
            del policies.inference.answer
            await until(lambda: node.guard.state is State.RUNNING)

    asyncio.run(run())


BAD_REPLIES = {
    "nan": np.full((16, 7), np.nan, np.float32),
    "beyond float32": np.full((16, 7), 1e300),
    "wrong shape": np.zeros((16, 6), np.float32),
    "one row": np.zeros(7, np.float32),
    "text": "zeros",
}


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_a_reply_that_is_no_chunk_is_never_adopted(name):
    assert chunk_of({"actions": BAD_REPLIES[name]}, 16, 7) is None
    assert chunk_of({"actions": np.zeros((16, 7))}, 16, 7) is not None


@pytest.mark.parametrize(
    "junk", ["x", None, [], {}, np.zeros(3), True, float("nan"), float("inf"), -1e300, 2**70], ids=repr
)
def test_a_reply_of_any_kind_can_be_read(junk):
    for key in ("robopref/obs_id", "robopref/candidates", "server_timing", "actions"):
        read = reply_of({"actions": np.zeros((16, 7)), key: junk}, 16, 7)
        assert isinstance(read.number, int) and np.isfinite(read.seconds) and read.candidates >= 1
    assert reply_of({"server_timing": {"infer_ms": junk}}, 16, 7).seconds == 0.0 and reply_of({}, 16, 7).chunk is None


@pytest.mark.parametrize(
    "told", [{"horizon": "16"}, {"execute": -1}, {"cameras": "wrist"}, {"cameras": ["a"]}, {"size": [0.5, 3]}]
)
def test_metadata_that_makes_no_sense_is_refused_at_the_door(told):
    with pytest.raises(PackingError, match="metadata"):
        metadata_of(told)


def test_a_broken_connection_means_a_new_epoch():
    async def run():
        async with chain() as (agent, node, server, _policies):
            await until(lambda: node.guard.state is State.RUNNING)
            epoch = node.guard.epoch
            for client in list(server._clients):
                await client.socket.close()
            await until(lambda: node.guard.state is State.RUNNING and node.guard.epoch > epoch)
            assert agent.tally.arms >= 2 and agent.bridge.counters.connects >= 2

    asyncio.run(run())


def test_a_latched_stop_is_left_by_a_person_who_clears_it_and_arms():
    async def run():
        async with chain() as (agent, node, _server, _policies):
            await until(lambda: node.guard.state is State.RUNNING)
            assert (await agent.bridge.call("/robopref/estop", "std_srvs/Trigger"))["success"]
            await until(lambda: node.guard.state is State.ESTOP)
            await asyncio.sleep(1.5)
            assert node.guard.state is State.ESTOP
            agent.control("reset")
            await until(lambda: node.guard.state is State.IDLE)
            await asyncio.sleep(1.5)
            assert node.guard.state is State.IDLE, "a cleared stop is no order to move"
            agent.rearm()
            await until(lambda: node.guard.state is State.RUNNING)

    asyncio.run(run())


def test_what_a_person_disarmed_stays_disarmed_over_lost_connections_too():
    async def run():
        async with chain() as (agent, node, server, _policies):
            await until(lambda: node.guard.state is State.RUNNING)
            agent.control("disarm")
            await until(lambda: node.guard.state is State.HOLD)
            await asyncio.sleep(1.5)
            for client in list(server._clients):
                await client.socket.close()
            await until(lambda: agent.bridge.counters.connects >= 2 and "OPERATOR" in agent.status.get("why", []))
            await asyncio.sleep(1.5)
            assert node.guard.state is State.HOLD
            agent.rearm()
            await until(lambda: node.guard.state is State.RUNNING)
            agent.retire()
            await until(lambda: node.guard.state is State.HOLD)
            await asyncio.sleep(1.5)
            assert node.guard.state is State.HOLD and not node.guard.why & Reason.OPERATOR, "the next agent may arm"

    asyncio.run(run())


def test_an_arm_with_a_button_runs_while_it_is_held():
    async def run():
        async with chain(guard=replace(LENIENT, deadman=True)) as (agent, node, _server, _policies):
            await until(lambda: node.guard.state is State.ARMED)
            await asyncio.sleep(0.5)
            assert node.guard.state is State.ARMED

            async def hold():
                while True:
                    agent.press(True)
                    await asyncio.sleep(0.05)

            held = asyncio.create_task(hold())
            await until(lambda: node.guard.state is State.RUNNING)
            held.cancel()
            await until(lambda: node.guard.state is State.HOLD)
            assert node.guard.why & Reason.DEADMAN

    asyncio.run(run())


def test_a_killed_recorder_loses_at_most_the_open_episode(tmp_path):
    recorder = Recorder(tmp_path)
    for number in range(3):
        recorder.begin(task="arm-reach", seed=number)
        for step in range(5):
            recorder._put({"row": "step", "number": step, "x": np.arange(4.0)})
        if number < 2:
            recorder.end(True)
    deadline = time.monotonic() + 10
    while recorder._queue.qsize() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    whole = next(tmp_path.glob(f"*{PARTIAL}")).read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(whole), 100):
        (tmp_path / "000009.partial").write_bytes(whole[:cut])
        rows = list(read(tmp_path / "000009.partial"))
        assert all(row["row"] in ("begin", "step") for row in rows) and len(rows) <= 6
    assert len(list(tmp_path.glob(f"*{FINISHED}"))) == 2
    recorder.close()


def test_a_full_disk_is_told_and_never_blocks(tmp_path, monkeypatch):
    recorder = Recorder(tmp_path)
    recorder.folder = type(
        "Full", (), {"iterdir": lambda self: (_ for _ in ()).throw(OSError(28, "No space left on device"))}
    )()
    recorder.begin(task="x")
    begin = time.monotonic()
    for _ in range(2000):
        recorder._put({"row": "step"})
    assert time.monotonic() - begin < 5
    recorder.end(False)
    deadline = time.monotonic() + 10
    while not recorder.failure and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "No space left" in recorder.failure and recorder.dropped > 0


def test_pairs_are_proposed_between_episodes_that_start_alike():
    from robopref.arrays import Trajectory

    def episode(start, masked):
        observation = np.full((4, 2), start, np.float32)
        extra = {"safety.masked": np.full((4, 1), masked, np.float32)}
        return Trajectory(
            observation, np.zeros((4, 1), np.float32), np.zeros(4, np.float32), np.zeros(4, bool), extra=extra
        )

    pairs = propose_pairs([episode(0, 0), episode(5, 0), episode(0.1, 1), episode(5.1, 0)])
    assert {(p["first"], p["second"]) for p in pairs} == {(0, 2), (1, 3)}
    assert pairs[0]["contrast"] == 1.0 and (pairs[0]["first"], pairs[0]["second"]) == (0, 2)
    assert propose_pairs([episode(0, 0)]) == []


def test_episodes_with_and_without_pictures_fit_into_one_store():
    from robopref.hardware.recorder import _alike

    from robopref.arrays import Trajectory

    def episode(horizon, images):
        observation, chunk = np.zeros((4, 2), np.float32), np.zeros((4, horizon, 1), np.float32)
        zeros, none = np.zeros(4, np.float32), np.zeros(4, bool)
        executed = np.zeros((4, horizon), bool)
        return Trajectory(
            observation, np.zeros((4, 1), np.float32), zeros, none, chunk=chunk, executed=executed, images=images
        )

    made = _alike([episode(1, {}), episode(16, {"camera": np.ones((4, 8, 8, 3), np.uint8)})])
    assert [one.chunk.shape for one in made] == [(4, 16, 1)] * 2
    assert [one.images["camera"].max() for one in made] == [0, 1]


def test_an_episode_in_which_nothing_ran_is_no_trajectory(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.begin(task="x")
    recorder.end(False)
    recorder.close()
    assert trajectory(next(tmp_path.glob(f"*{FINISHED}"))) is None
