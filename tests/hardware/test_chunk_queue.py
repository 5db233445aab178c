"""Chunks that arrive late: no idle step, no stale action, small seams."""

import numpy as np
import pytest
from robopref.hardware.action_spaces import ActionSpace
from robopref.hardware.chunk_queue import ChunkQueue
from robopref.hardware.kinematics import grasp_point

from robopref.arrays import InputError

H, E = 16, 8
HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


def simulate(mode, delay, steps=120, sampler=None):
    """(idle steps after the first action, actions) when every reply takes `delay` steps."""
    queue, pending, idle, actions = ChunkQueue(H, E, mode), None, 0, []
    rng = np.random.default_rng(0)
    for step in range(steps):
        if pending is not None and step >= pending[0]:
            queue.adopt(pending[1].step, sampler(pending[1], rng) if sampler else np.zeros((H, 1)), step)
            pending = None
        plan = queue.plan(step)
        if plan is not None:
            assert pending is None
            if delay == 0:
                queue.adopt(step, sampler(plan, rng) if sampler else np.zeros((H, 1)), step)
            else:
                pending = (step + delay, plan)
        due = queue.due(step)
        if due is None:
            idle += bool(actions)
        else:
            actions.append((step, due))
    return idle, actions


@pytest.mark.parametrize("mode", ["real_time", "ensemble", "asynchronous"])
@pytest.mark.parametrize("delay", range(7))
def test_up_to_six_steps_of_delay_never_idle(mode, delay):
    idle, actions = simulate(mode, delay)
    assert idle == 0
    assert all(0 <= due.index < H for _, due in actions)


@pytest.mark.parametrize("delay", range(1, 7))
def test_waiting_for_each_chunk_idles(delay):
    assert simulate("synchronous", delay)[0] > 0


def test_no_action_runs_more_than_a_chunk_after_its_observation():
    queue = ChunkQueue(H, E)
    queue.plan(0)
    assert queue.adopt(0, np.zeros((H, 1)), 0)
    assert queue.due(H - 1) is not None and queue.due(H) is None
    queue.plan(H)
    assert not queue.adopt(H, np.zeros((H, 1)), 2 * H), "a reply older than its chunk"
    assert queue.dropped == 1 and not queue.adopt(99, np.zeros((H, 1)), 99), "a reply nobody asked for"


def test_frozen_rows_are_what_runs_while_waiting():
    """The sampler keeps the first `delay` rows; what runs until the switch must be exactly those."""
    chunks = {}

    def sampler(plan, rng):
        chunk = rng.normal(size=(H, 1))
        if plan.previous is not None:
            chunk[: plan.delay] = plan.previous[: plan.delay]
        chunks[plan.step] = chunk
        return chunk

    _, actions = simulate("real_time", 3, sampler=sampler)
    ran = {step: due.action[0] for step, due in actions}
    late = [start for start in chunks if start > 20 and start + 3 < 110]
    assert late
    for start in late:
        for row in range(3):
            assert ran[start + row] == chunks[start][row, 0]


def test_ensembling_averages_with_the_oldest_first():
    queue = ChunkQueue(4, 2, "ensemble", decay=0.5)
    for step, value in ((0, 1.0), (1, 3.0)):
        queue._asked = step
        queue.adopt(step, np.full((4, 1), value), step)
    weights = np.exp(-0.5 * np.arange(2))
    assert queue.due(2).action[0] == pytest.approx((weights * [1.0, 3.0]).sum() / weights.sum())
    assert queue.due(4).action[0] == 3.0, "the first chunk has ended"


def test_action_spaces_mean_what_they_say():
    joints, width = ActionSpace("joint_delta", gripper=True).target(np.r_[np.full(7, 0.5), -1.0], HOME, 0.1)
    assert np.allclose(joints, HOME + 0.025) and width == 0.0
    velocity = ActionSpace("joint_velocity", scale=0.5).target(np.ones(7), HOME, 0.1)[0]
    assert np.allclose(velocity, HOME + 0.05)
    low = ActionSpace("joint_absolute").target(-np.ones(7), HOME, 0.1)[0]
    assert np.allclose(low, ActionSpace().limits.stop_min + 0.05)
    moved = ActionSpace("ee_delta", scale=0.01).target(np.array([1.0, 0, 0]), HOME, 0.1)[0]
    step = grasp_point(moved)[:3, 3] - grasp_point(HOME)[:3, 3]
    assert np.allclose(step, [0.01, 0, 0], atol=1e-3)
    assert ActionSpace("ee_delta", rotate=True, gripper=True).width == 7
    with pytest.raises(InputError, match="8 numbers"):
        ActionSpace(gripper=True).target(np.zeros(7), HOME, 0.1)
    with pytest.raises(InputError, match="kind"):
        ActionSpace("torque")
