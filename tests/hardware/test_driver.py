"""The arm's own ROS driver beside our node, made up behind our bridge server in its dialect: hand, states, recovery."""

import asyncio
import time

import pytest
from robopref.hardware.driver import DriverLink
from robopref.hardware.rosbridge import SUCCEEDED, Result, RosBridge
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.topics import DRIVERS


class MadeUp:
    """What a driver does: it moves its hand by action or topic, says where the fingers are, and recovers."""

    def __init__(self, bridge, driver):
        self.bridge, self.driver, self.widths, self.recoveries = bridge, driver, [], 0
        bridge.advertise(driver.robot_state, driver.robot_state_type)
        bridge.advertise(driver.gripper_states, "sensor_msgs/JointState")
        if not driver.gripper_actions:
            bridge.subscribe(
                driver.gripper_move, "std_msgs/Float64MultiArray", lambda m: self.widths.append(m["data"][0])
            )
        self._offer(driver.recovery, driver.recovery_type, self._recover)
        if driver.gripper_actions:
            self._offer(driver.gripper_move, f"{driver.gripper_package}/Move", self._move)

    def _recover(self, args):
        self.recoveries += 1

    def _move(self, args):
        self.widths.append(args["width"])

    def _offer(self, action, kind, then):
        if self.driver.dialect == "ros2":

            async def handler(args, feedback):
                then(args)
                return Result(SUCCEEDED, {"success": True})

            self.bridge.offer_action(action, kind, handler)
            return
        self.bridge.advertise(f"{action}/result", f"{kind}ActionResult")

        def heard(message):
            then(message["goal"])
            status = {"goal_id": message["goal_id"], "status": 3}
            self.bridge.publish(f"{action}/result", {"header": {}, "status": status, "result": {"success": True}})

        self.bridge.subscribe(f"{action}/goal", f"{kind}ActionGoal", heard)

    def tell(self, width):
        header = {"stamp": {"sec": 1, "nanosec": 2}, "frame_id": ""}
        self.bridge.publish(
            self.driver.gripper_states, {"header": header, "name": ["a", "b"], "position": [width / 2] * 2}
        )
        state = {"robot_mode": 4, "current_errors": {"joint_reflex": True, "cartesian_reflex": False}}
        self.bridge.publish(self.driver.robot_state, state)


async def until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_a_driver_moves_the_hand_as_the_guard_allows_and_recovers_when_it_does(name):
    driver = DRIVERS[name]

    async def run():
        async with (
            BridgeServer(dialect=driver.dialect) as server,
            RosBridge(server.url, driver.dialect) as ours,
            RosBridge(server.url, driver.dialect) as theirs,
        ):
            await ours.wait()
            await theirs.wait()
            made, status = MadeUp(theirs, driver), {"state": "HOLD", "gripper": 0.08}
            link = DriverLink(ours, driver, lambda: status)
            assert link.opening() is None and link.told() == {}
            link.start()
            await asyncio.sleep(0.3)
            task = asyncio.create_task(link.run())
            await asyncio.sleep(0.3)
            assert made.widths == [], "no hand moves while the guard holds"
            status |= {"state": "RUNNING", "gripper": 0.02}
            await until(lambda: made.widths)
            status["gripper"] = 0.0205
            await asyncio.sleep(0.3)
            assert made.widths == [0.02], "half a millimetre is no order"
            made.tell(0.02)
            await until(lambda: link.opening() is not None and link.told())
            assert link.opening() == pytest.approx(0.25)
            assert link.told() == {"robot_mode": 4, "errors": ["joint_reflex"]}
            status["state"] = "RECOVERING"
            await until(lambda: link.recoveries == 1)
            await asyncio.sleep(0.3)
            assert made.recoveries == 1, "once, not at every look"
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
