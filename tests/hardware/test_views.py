"""One preset of conf/robot for the simulation and for the arm: what is seen is equal, what is done is equal, and it runs on both."""

import asyncio
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from robopref.hardware import kinematics
from robopref.hardware.arm_reach import ArmReach
from robopref.hardware.choices import chosen
from robopref.hardware.guard import Settings
from robopref.hardware.inference import Inference
from robopref.hardware.limits import ARMS
from robopref.hardware.metaworld_view import CLOSED, MetaWorldView
from robopref.hardware.periods import AgentSettings
from robopref.hardware.policy_server import PolicyServer
from robopref.hardware.recorder import assemble
from robopref.hardware.request import request_of
from robopref.hardware.scene import Scene, place, pose_of
from robopref.hardware.session import session
from robopref.hardware.testing.bridge_server import BridgeServer
from robopref.hardware.testing.rig import KinematicArm, arm_node
from robopref.hardware.views import Reach, Sensed, view_of
from scipy.spatial.transform import Rotation

from robopref.arrays import InputError
from robopref.data.store import TrajectoryStore
from robopref.policies.diffusion import Diffusion
from robopref.run import compose
from robopref.types import Dims

PRESETS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/robot").glob("*.yaml"))
PATIENT = AgentSettings(hz=15, observation_age=1.0, adopt_age=1.0, patience=5.0)
LENIENT = Settings(age=1.0, watchdog=0.5, observation_age=3.0)


@pytest.mark.parametrize("arm", sorted(ARMS))
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_played_behind_the_guard_and_shows_what_it_says(preset, arm):
    view = view_of(preset, {"arm": arm})
    env = ArmReach(robot=view)
    observation, _ = env.reset(seed=3)
    assert observation.shape == (view.width,) and env.action_space.shape == (view.space.width,)
    assert view.space.limits is ARMS[arm]
    sensed = Sensed(view.start_of(3), view.goal_of(3), 1.0, view.resting())
    np.testing.assert_array_equal(observation, view.observe(sensed), "the arm at the same place shows the same numbers")
    left = view.distance(sensed)
    for _ in range(20):
        env.step(env.expert(observation := env._observation()))
    assert view.distance(env._sensed()) < left


KINDS = ["joint_delta", "joint_absolute", "joint_velocity", "ee_delta"]


@pytest.mark.parametrize("gripper", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_action_space_has_a_gripper_that_moves_and_is_seen(kind, gripper):
    view = view_of("reach", {"kind": kind, "gripper": gripper, "scale": 0.5 if kind == "joint_velocity" else 0.05})
    env = ArmReach(robot=view)
    observation, _ = env.reset(seed=1)
    left, closing = view.distance(env._sensed()), []
    for _ in range(12):
        action = env.expert(observation)
        if gripper:
            assert action[-1] == 1
            action[-1] = -1
        observation, *_ = env.step(action)
        closing.append(float(observation[-1]))
    assert view.distance(env._sensed()) < left, "the expert knows every action space"
    if gripper:
        assert closing[0] < 1 and closing[-1] == pytest.approx(0, abs=0.02)
        again = ArmReach(robot=view)
        np.testing.assert_array_equal(again.set_state(env.get_state()), observation)
        np.testing.assert_array_equal(again.step(env.expert(observation))[0], env.step(env.expert(observation))[0])


def sensed_in(view, observation, before=None):
    """What an arm with its hand where Meta-World's is, a tracker beside it, would sense."""
    objects = []
    for at in [4 + 7 * n for n in range(view.objects)]:
        quaternion = np.roll(observation[at + 3 : at + 7], -1) if view.scalar_first else observation[at + 3 : at + 7]
        turned = (Rotation.from_euler("z", view.yaw) * Rotation.from_quat(quaternion)).as_quat()
        objects.append([*view.placed(observation[at : at + 3].astype(float)), *turned])
    q = dataclasses.replace(view, start=tuple(observation[:3].astype(float))).start_of(0)
    opening = (float(observation[3]) - CLOSED) / (1 - CLOSED)
    goal = view.placed(observation[36:39].astype(float))
    return Sensed(q, goal, opening, np.array(objects).reshape(-1, 7), before)


@pytest.mark.parametrize(("task", "scalar_first"), [("reach", False), ("drawer-open", True), ("door-open", False)])
def test_the_arm_shows_a_policy_what_metaworld_shows_it(task, scalar_first):
    from robopref.envs.metaworld import MetaWorld

    view, env = view_of("metaworld", {"scalar_first": scalar_first}), MetaWorld(task)
    observation, _ = env.reset(seed=7)
    before = None
    for step in range(25):
        now = sensed_in(view, observation, before)
        if step % 8 == 0:
            np.testing.assert_allclose(view.observe(now), observation, atol=2e-5)
        before = dataclasses.replace(now, before=None)
        observation, *_ = env.step(env.expert(observation) if step < 15 else np.array([0, 0, 0, 1.0], np.float32))
    assert observation[3] < 0.9, "the fingers closed, and were seen"


def test_an_action_means_on_the_arm_what_it_means_in_metaworld():
    from robopref.envs.metaworld import MetaWorld

    env = MetaWorld("reach")
    for repeat in (1, 4):
        view = view_of("metaworld", {"repeat": repeat})
        assert view.space.scale == pytest.approx(env._sim.action_scale * repeat)
        q = view.start_of(0)
        for action in np.eye(4)[:3]:
            target, _ = view.space.target(action, q, 1 / 15)
            moved = view._seen(kinematics.grasp_point(target)[:3, 3]) - view._seen(kinematics.grasp_point(q)[:3, 3])
            wanted = env._sim.action_scale * repeat * action[:3]
            np.testing.assert_allclose(moved, wanted, atol=0.1 * view.space.scale, err_msg="one linear step")
        assert view.space.target(np.array([0, 0, 0, 1.0]), q, 1 / 15)[1] == 0.0, "1 closes"
        assert view.space.target(np.array([0, 0, 0, -1.0]), q, 1 / 15)[1] == pytest.approx(0.08)


def test_metaworlds_own_expert_reaches_with_the_arm():
    """A policy that knows Meta-World only, on the Franka's kinematics behind the guard."""
    from robopref.envs.metaworld import MetaWorld

    expert, env = MetaWorld("reach").expert, ArmReach(robot=view_of("metaworld", {"repeat": 4}))
    reached = 0
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        for _ in range(60):
            observation, _, _, _, info = env.step(expert(observation))
            if info["success"]:
                reached += 1
                break
    assert reached >= 9


def test_an_experiment_gives_environment_and_arm_the_same_preset():
    for words in (["robot.arm=panda", "robot.kind=ee_delta"], ["robot=metaworld", "robot.repeat=4"]):
        config = compose(["experiment=robot_in_the_loop", *words])
        assert config["env"]["robot"] == config["arm"]["robot"] == config["robot"]


CHAINS = [("reach", "panda", "ros2"), ("metaworld", "fr3", "ros2"), ("metaworld", "panda", "ros1")]


@pytest.mark.parametrize(("preset", "arm", "dialect"), CHAINS)
def test_the_preset_of_the_simulation_is_deployed_and_its_policy_named_in_the_recording(preset, arm, dialect, tmp_path):
    """The words of `robopref deploy`, a policy of the environment's shapes, and a node of that arm: its commands are taken."""
    view = view_of(preset, {"arm": arm})
    env = ArmReach(robot=view)
    torch.manual_seed(0)
    policy = Diffusion(Dims(env.observation_space.shape[0], env.action_space.shape[0]), horizon=16, execute=8, width=32, depth=1, sample_steps=4)  # fmt: skip
    policy.normalizer.fit(torch.randn(60, view.width), torch.rand(60, view.space.width) * 2 - 1)

    async def run():
        async with (
            BridgeServer(dialect=dialect) as server,
            PolicyServer(Inference(policy.eval(), "its-hash")) as policies,
            arm_node(server.url, KinematicArm(), LENIENT, ARMS[arm], dialect) as node,
        ):
            words = {"bridge": server.url, "policy": policies.url, "robot": preset, "arm": arm, "dialect": dialect}
            words |= {"out": str(tmp_path), "objects": "0.37:0:0.14"} if view.told else {"out": str(tmp_path)}
            request = request_of(words)
            assert request.view == view and request.topics.arm == arm
            async with session(request, settings=PATIENT) as (live, _):
                await live.start(0, 60)
                live.begin(0, {"task": "t", "env": "arm", "policy_hash": request.hash})
                assert await live.until(lambda: live.ran >= 20, 60) < 60, live.agent.status
                live.end(False)
            bits = dict(node.counts.bits)
            assert "NAMES" not in bits and "DAMAGED" not in bits and node.guard.seq > 20
            return node.guard.gripper

    width = asyncio.run(run())
    assert (width < 0.08) == (preset == "metaworld"), "the policy's fourth number moves the hand"
    assert assemble(tmp_path / "episodes", tmp_path / "store", 15) == 1
    episode = TrajectoryStore(tmp_path / "store")[0]
    assert (
        episode.observation.shape[1:] == env.observation_space.shape
        and episode.action.shape[1:] == env.action_space.shape
    )
    assert episode.policy == "its-hash", "nobody typed it: the server said so"
    first = view.observe(Sensed(episode.extra["joints"][0, :7], live_goal(view), 1.0, place_of(view)))
    np.testing.assert_allclose(episode.observation[0][:3], first[:3], atol=1e-4)


def live_goal(view):
    return view.goal_of(0)


def place_of(view):
    return np.tile(place("objects", "0.37:0:0.14"), (view.told, 1))


def test_names_that_are_none_are_refused_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean panda"):
        chosen("arm", "pandas", ARMS)
    for words, told in [
        ({"arm": "pnda"}, "Did you mean panda"),
        ({"robot": "metawrld"}, "Did you mean metaworld"),
        ({"driver": "franka_ros3"}, "Did you mean franka_ros"),
        ({"dialect": "ros3"}, "ros1, ros2"),
        ({"driver": "franka_ros", "dialect": "ros2"}, "wanted ros1"),
        ({"space": "joint"}, "joint_delta"),
        ({"robot": "metaworld", "robot.judged": "foot"}, "hand or object"),
        ({"robot.colour": "red"}, "colour"),
        ({"hz": "fast"}, "wanted a number"),
        ({"goal": "0.5:0"}, "X:Y:Z"),
        ({"ca": "x.pem"}, "wss://"),
    ]:
        with pytest.raises(InputError, match=told):
            request_of({"bridge": "ws://x", "policy": "ws://y", **words})


def pose(x, w=1.0):
    return {"pose": {"position": {"x": x, "y": 0.0, "z": 0.0}, "orientation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": w}}}


def test_a_pose_that_nobody_tells_blinds_the_policy():
    now = [0.0]
    view = MetaWorldView(objects=1)
    with pytest.raises(InputError, match="objects=/TOPIC"):
        Scene(view)
    scene = Scene(view, "/goal", ["/puck"], clock=lambda: now[0])
    q = view.start_of(0)
    assert scene.observe(q) is None
    scene._heard["/goal"](pose(0.5))
    scene._heard["/puck"](pose(0.4))
    seen = scene.observe(q)
    np.testing.assert_allclose(view.placed(seen[36:39].astype(float)), [0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(view.placed(seen[4:7].astype(float)), [0.4, 0, 0], atol=1e-6)
    np.testing.assert_allclose(scene.goal, [0.5, 0, 0])
    now[0] = 0.2
    moved = scene.observe(q + 0.01)
    np.testing.assert_array_equal(moved[18:36], seen[:18], "the frame of the period before")
    now[0] = 1.5
    assert scene.observe(q) is None, "a tracker that is silent is not believed for ever"


@pytest.mark.parametrize(
    "broken", [None, {}, {"pose": {}}, pose(float("nan")), pose(0.1, w=0.0), {"pose": {"position": 3}}]
)
def test_a_message_that_is_no_pose_is_none(broken):
    assert pose_of(broken) is None


def test_a_gripper_belongs_to_what_is_seen():
    assert Reach().width == 13 and Reach(gripper=True).width == 14
