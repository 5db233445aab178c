"""What the demonstration makes of the simulator's complaints and of its faults, and how late chunks are played in the benchmark."""

import numpy as np
import pytest
from robopref.benchmarks._delayed import play
from robopref.hardware.testing.chain import read_complaints
from robopref.hardware.testing.demo import verdict

from robopref.types import Dims, PolicySpec

LOG = """
2026-01-01 00:00:00,000 INFO franka_sim.x: joint_velocity_violation is only mentioned here
2026-01-01 00:00:00,000 WARNING franka_sim.sim: simulation running at 0.73x real time (physics overloaded)
2026-01-01 00:00:01,000 WARNING franka_sim.sim: simulation running at 0.91x real time (physics overloaded)
2026-01-01 00:00:02,000 ERROR franka_sim.s: communication_constraints_violation: 20 consecutive lost command cycles
2026-01-01 00:00:03,000 WARNING franka_sim.s: Refusing Move 7: a reflex is still latched
2026-01-01 00:00:04,000 WARNING franka_sim.s: joint_motion_generator_velocity_limits_violation on joint 3
"""


def test_broken_limits_and_lost_cycles_are_told_apart():
    found = read_complaints(LOG)
    assert [line.rpartition(" ")[2] for line in found.broken_limits] == ["3"]
    assert len(found.lost_cycles) == 1 and found.real_time == 0.73
    assert read_complaints("") == type(found)([], [], None)


def good():
    fault = {"fault": "bridge killed", "stopped_after_s": 0.3, "running_after_s": 2.0}
    return {"faults": [fault], "broken_limits": [], "adopted_ages_p99_ms": 120.0, "recorded": 3}


BAD = {
    "never stopped": lambda r: r["faults"][0].update(stopped_after_s=None),
    "stopped late": lambda r: r["faults"][0].update(stopped_after_s=9.0),
    "never ran again": lambda r: r["faults"][0].update(running_after_s=None),
    "broke a limit": lambda r: r["broken_limits"].append("x"),
    "adopted an old chunk": lambda r: r.update(adopted_ages_p99_ms=301.0),
    "adopted none": lambda r: r.update(adopted_ages_p99_ms=float("nan")),
    "recorded nothing": lambda r: r.update(recorded=0),
}


@pytest.mark.parametrize("name", BAD)
def test_one_thing_that_failed_is_named(name):
    assert all(row["ok"] for row in verdict(good()).values())
    report = good()
    BAD[name](report)
    assert sum(not row["ok"] for row in verdict(report).values()) == 1


class Counting:
    """Rows count on from the row of the request; the second chunk is off by one half."""

    spec = PolicySpec(Dims(1, 1), horizon=8, execute=4, history=1)

    def __init__(self):
        self.asked = 0

    def answer(self, requests):
        self.asked += 1
        return [0.5 * (self.asked > 1) + 0.1 * np.arange(8, dtype=np.float32)[:, None] for _ in requests]


class Still:
    done = False

    def __init__(self):
        self.observation, self.actions = np.zeros(1, np.float32), []

    def step(self, action):
        self.actions.append(action)


def test_a_synchronous_loop_idles_while_it_waits_and_an_asynchronous_one_jumps():
    bodies = [Still(), Still()]
    found = play(Counting(), bodies, "synchronous", 3, 10)
    assert found.idle == 3 and [action is None for action in bodies[0].actions] == [True] * 3 + [False] * 4 + [True] * 3
    bodies = [Still(), Still()]
    found = play(Counting(), bodies, "asynchronous", 3, 12)
    assert found.idle == 0 and found.within and max(found.within) == pytest.approx(0.1, abs=1e-6)
    assert len(found.across) == 2 * len(bodies)
    assert found.across[0] == pytest.approx(0.3, abs=1e-6), (
        "from row 5 of the first chunk, 0.5, to row 3 of the second, 0.8"
    )


def test_a_body_that_is_done_is_neither_moved_nor_measured():
    bodies = [Still(), Still()]
    bodies[1].done = True
    found = play(Counting(), bodies, "asynchronous", 0, 6)
    assert len(bodies[0].actions) == 6 and not bodies[1].actions
    assert len(found.within) + len(found.across) == 5
