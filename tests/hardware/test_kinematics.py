"""Our kinematics against themselves, and against libfranka's own model on a thousand configurations."""

import itertools
import json
import subprocess

import numpy as np
import pytest
from robopref.hardware import kinematics
from robopref.hardware.limits import FR3
from robopref.hardware.workspace import Workspace, capsules, segment_distance

HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])
LIBFRANKA = """
import json, sys
import numpy as np, pylibfranka, franka
configurations = np.array(json.load(sys.stdin))
robot = pylibfranka.Robot("127.0.0.1", pylibfranka.RealtimeConfig.kIgnore)
model, state = robot.load_model(), robot.read_once()
jacobians = []
for q in configurations:
    state.q = q.tolist()
    jacobians.append(model.zero_jacobian(state))
del robot, model
import time; time.sleep(0.5)
other = franka.Robot("127.0.0.1", realtime="ignore").model()
poses = [other.pose("flange", q).tolist() for q in configurations]
print(json.dumps({"jacobians": jacobians, "poses": poses}))
"""


def configurations(count, seed=0):
    return np.random.default_rng(seed).uniform(FR3.q_min, FR3.q_max, (count, 7))


def test_the_jacobian_is_the_derivative_of_the_pose():
    for q in configurations(20):
        j = kinematics.jacobian(q)
        for i in range(7):
            step = np.eye(7)[i] * 1e-6
            moved, back = kinematics.flange(q + step), kinematics.flange(q - step)
            assert np.allclose((moved - back)[:3, 3] / 2e-6, j[:3, i], atol=1e-8)
            spin = (moved - back)[:3, :3] / 2e-6 @ kinematics.flange(q)[:3, :3].T
            assert np.allclose([spin[2, 1], spin[0, 2], spin[1, 0]], j[3:, i], atol=1e-8)


def test_a_batch_is_its_rows():
    q = configurations(6).reshape(2, 3, 7)
    assert np.array_equal(kinematics.frames(q)[1, 2], kinematics.frames(q[1, 2]))
    assert np.allclose(kinematics.jacobian(q)[0, 1], kinematics.jacobian(q[0, 1]))
    assert np.allclose(Workspace().margins(q)[1, 0], Workspace().margins(q[1, 0]))


def test_rotations_are_rotations():
    rotation = kinematics.frames(configurations(50))[..., :3, :3]
    assert np.allclose(rotation @ rotation.swapaxes(-1, -2), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotation), 1.0)


def test_a_solved_twist_moves_the_grasp_point_as_asked():
    twist = np.array([0.004, -0.003, 0.002, 0.0, 0.0, 0.01])
    after = kinematics.grasp_point(HOME + kinematics.solve_twist(HOME, twist, damping=1e-4))
    assert np.allclose(after[:3, 3] - kinematics.grasp_point(HOME)[:3, 3], twist[:3], atol=5e-5)


def test_segment_distances_are_the_smallest_over_all_points():
    rng = np.random.default_rng(1)
    pairs = rng.normal(size=(100, 2, 2, 3))
    along = np.linspace(0, 1, 101)[:, None]
    for first, second in pairs:
        points = [s[0] + along * (s[1] - s[0]) for s in (first, second)]
        brute = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1).min()
        axes = first[1] - first[0], second[1] - second[0]
        lengths = np.linalg.norm(axes, axis=1)
        vectors = np.stack([first[0] - second[0], *(np.array(axes) / lengths[:, None])])
        found = segment_distance(vectors[:, None, :, None], *lengths).item()
        assert brute - 0.02 < found <= brute + 1e-12


def test_no_point_moves_farther_than_the_reach_says():
    from robopref.hardware.workspace import REACH

    rng = np.random.default_rng(2)
    for q in configurations(200):
        step = rng.normal(size=7) * 1e-3
        moved = np.linalg.norm(capsules(q + step) - capsules(q), axis=-1).max()
        assert moved <= np.abs(step) @ REACH + 1e-6


def test_poses_of_one_configuration_are_its_frames():
    for q in configurations(50):
        axes = np.array(kinematics.poses(q.tolist())).reshape(9, 4, 3).swapaxes(1, 2)  # columns x, y, z, origin
        assert np.allclose(axes, kinematics.frames(q)[:, :3], atol=1e-12)


@pytest.mark.parametrize("half_spaces", [(), ((0, 0, 1, 0.02), (2, 1, 0, -0.8))])
def test_what_is_asked_again_only_when_due_is_what_asking_always_says(half_spaces):
    from robopref.hardware.nearness import Nearness

    workspace = Workspace(half_spaces=half_spaces)
    nearness, rng, said = Nearness(workspace), np.random.default_rng(3), set()
    ends = configurations(60)
    for before, after in itertools.pairwise(ends):
        for share in np.linspace(0, 1, 80):
            path = before + share * (after - before) + rng.normal(size=(2, 7)) * 1e-3
            wanted = int(np.bitwise_or.reduce(workspace.violations(path)))
            assert nearness.broken(path.tolist()) == wanted
            said.add(wanted)
    assert len(said) >= 3


@pytest.mark.parametrize(
    ("plane", "broken"), [((0, 0, 1, 0.02), False), ((0, 0, 1, 0.5), True), ((1, 0, 0, 0.2), True)]
)
def test_half_spaces_are_kept_by_every_moving_link(plane, broken):
    assert (Workspace(half_spaces=(plane,)).margins(HOME)[1] < 0) == broken


def test_the_simulator_model_has_our_frames():
    mujoco = pytest.importorskip("mujoco")
    from robopref.hardware.testing.model import xml

    model = mujoco.MjModel.from_xml_string(xml())
    data = mujoco.MjData(model)
    for q in configurations(20):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        ours = kinematics.frames(q)
        for i in range(1, 8):
            assert np.allclose(data.body(f"fr3_link{i}").xpos, ours[i, :3, 3], atol=1e-12)


def test_pose_and_jacobian_are_those_of_libfranka(environments, simulator):
    q = configurations(1000)
    asked = [environments.franka / "bin/python", "-c", LIBFRANKA]
    done = subprocess.run(asked, input=json.dumps(q.tolist()), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    theirs = np.array(answer["jacobians"]).reshape(-1, 7, 6).swapaxes(1, 2)  # column-major
    assert np.abs(theirs - kinematics.jacobian(q)).max() < 1e-6
    assert np.abs(np.array(answer["poses"]) - kinematics.flange(q)).max() < 1e-6
