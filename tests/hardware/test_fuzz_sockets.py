"""Floods of messages that make no sense, over real sockets: every connection goes on working, and nothing ends unseen."""

import asyncio

import numpy as np
import pytest
import torch
from robopref.hardware.inference import Inference
from robopref.hardware.policy_client import reply_of
from robopref.hardware.policy_server import PolicyServer
from robopref.hardware.rosbridge import BridgeError, Result, RosBridge
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.testing.fuzz_sockets import (
    flood_bridge_client,
    flood_gateway,
    flood_policy_client,
    flood_policy_server,
)

from robopref.policies.diffusion import Diffusion
from robopref.types import Dims

COUNT = 1500


@pytest.mark.parametrize("dialect", ["ros2", "ros1"])
def test_a_flood_does_not_end_the_bridges_client(dialect):
    found = asyncio.run(flood_bridge_client(COUNT, 0, dialect))
    assert found.alive and found.counted > COUNT / 10, found


def test_a_flood_does_not_end_the_policys_client():
    found = asyncio.run(flood_policy_client(COUNT, 0, lambda reply: reply_of(reply, 16, 7)))
    assert found.alive and found.counted > COUNT / 20, found


def test_a_flood_does_not_end_the_policy_server():
    torch.manual_seed(0)
    policy = Diffusion(Dims(13, 7), horizon=16, execute=8, width=16, depth=1, sample_steps=2)
    policy.normalizer.fit(torch.randn(60, 13), torch.rand(60, 7) * 2 - 1)

    async def run():
        async with PolicyServer(Inference(policy.eval(), "hash")) as server:
            return await flood_policy_server(COUNT // 3, 0, server.url, {"state": np.zeros((1, 13), np.float32)})

    found = asyncio.run(run())
    assert found.alive and found.counted > COUNT / 6, found


def test_a_flood_opens_no_door_of_the_gateway():
    found = asyncio.run(flood_gateway(COUNT, 0))
    assert found.alive and found.passed == 0 and found.counted > COUNT / 3, found


UNREADABLE = [
    {"op": "call_service", "service": []},
    {"op": "call_service", "service": {}},
    {"op": "send_action_goal", "action": {}},
    {"op": "cancel_action_goal", "id": []},
    {"op": "service_response", "id": {}},
    {"op": "action_result", "id": [], "status": {}},
]


@pytest.mark.parametrize("message", UNREADABLE, ids=str)
def test_a_message_that_cannot_be_read_is_passed_over(message):
    for dialect in ("ros2", "ros1"):
        RosBridge("ws://nowhere", dialect)._dispatch(message)


@pytest.mark.parametrize("status", ["x", 3, None, [], {"goal_id": "x"}, {"goal_id": {"id": []}, "status": []}], ids=str)
def test_a_ros1_result_of_any_kind_can_be_read(status):
    RosBridge("ws://nowhere", "ros1")._goals._ros1_heard({"status": status, "result": 3})
    RosBridge("ws://nowhere", "ros1")._goals._ros1_heard(status)


def test_who_calls_what_fails_is_told():
    async def broken(args, feedback):
        raise RuntimeError("no")

    async def nonsense(args, feedback):
        return 3

    async def unsayable(args, feedback):
        return Result(4, {"x": float("nan")})

    async def run():
        async with BridgeServer() as server, RosBridge(server.url) as first, RosBridge(server.url) as second:
            await first.wait()
            await second.wait()
            first.serve("/raises", "std_srvs/Trigger", lambda args: {"x": args["missing"]})
            first.serve("/nothing", "std_srvs/Trigger", lambda args: None)
            first.serve("/nan", "std_srvs/Trigger", lambda args: {"x": float("nan")})
            for name, act in (("broken", broken), ("nonsense", nonsense), ("unsayable", unsayable)):
                first.offer_action(f"/{name}", "test/A", act)
            await asyncio.sleep(0.2)
            for service in ("/raises", "/nothing", "/nan"):
                with pytest.raises(BridgeError, match=service):
                    await second.call(service, "std_srvs/Trigger", timeout=5)
            for action in ("/broken", "/nonsense", "/unsayable"):
                assert (await second.send_goal(action, "test/A", {}, timeout=5)).status == 6
            assert first.counters.failed >= 5 and first.connected

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_whose_task_ended_does_not_say_that_it_is_connected():
    async def run():
        async with BridgeServer() as server, RosBridge(server.url) as bridge:
            await bridge.wait()
            bridge._task.cancel()
            await asyncio.gather(bridge._task, return_exceptions=True)
            assert not bridge.connected

    asyncio.run(run())
