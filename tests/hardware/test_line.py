"""The line of a command through the workspace: all links at once say what each alone says, and the line ends where they say."""

import numpy as np
import pytest
from robopref.hardware.limits import FR3, PANDA
from robopref.hardware.testing.bench import Bench
from robopref.hardware.workspace import BITS, PAIRS, RADIUS, ROOM, Workspace, capsules

WORKSPACES = {
    "default": Workspace(),
    "narrow box": Workspace((-0.3, -0.35, 0.0), (0.7, 0.35, 0.95), half_spaces=()),
    "slanted walls": Workspace(half_spaces=((0, 0, 1, 0.02), (2, 1, 0, -0.8), (-1, 0, 1, -0.4))),
    "links far apart": Workspace((-2, -2, -2), (2, 2, 2), half_spaces=(), separation=0.12),
}
workspaces = pytest.mark.parametrize("workspace", WORKSPACES.values(), ids=WORKSPACES)
arms = pytest.mark.parametrize("arm", [FR3, PANDA], ids=lambda arm: arm.name)


def between(first, second):
    """Distance of two segments (2, 3), step by step as the book has it."""
    d1, d2, r = first[1] - first[0], second[1] - second[0], first[0] - second[0]
    a, e, b, c, f = d1 @ d1, d2 @ d2, d1 @ d2, d1 @ r, d2 @ r
    denominator = a * e - b * b
    s = min(max((b * f - c * e) / denominator, 0.0), 1.0) if denominator > 1e-12 else 0.0
    t = min(max((b * s + f) / e, 0.0), 1.0)
    s = min(max((b * t - c) / a, 0.0), 1.0)
    return np.linalg.norm(r + s * d1 - t * d2)


def margins(workspace, q):
    """`Workspace.margins` of one configuration, link by link."""
    ends = capsules(q)
    reach = RADIUS[ROOM][:, None, None]
    box = min((ends[ROOM] - workspace.low - reach).min(), (workspace.high - ends[ROOM] - reach).min())
    floor = min(
        (float((ends[i] @ normal).min() - d - RADIUS[i]) for *normal, d in workspace.planes.tolist() for i in ROOM),
        default=np.inf,
    )
    gap = min(between(ends[i], ends[j]) - RADIUS[i] - RADIUS[j] for i, j in PAIRS) - workspace.separation
    return np.array([box, floor, gap])


@workspaces
@arms
def test_all_margins_at_once_are_those_of_every_link_alone(arm, workspace):
    q = np.random.default_rng(0).uniform(arm.q_min, arm.q_max, (150, 7))
    wanted = np.array([margins(workspace, one) for one in q])
    np.testing.assert_allclose(workspace.margins(q), wanted, atol=1e-12)
    assert 0 < (wanted < 0).any(1).sum() < len(q)


@workspaces
@arms
def test_a_line_is_shortened_as_asking_every_eighth_of_it_says(arm, workspace):
    rng, cut = np.random.default_rng(1), 0
    for start, end in rng.uniform(arm.stop_min, arm.stop_max, (150, 2, 7)):
        end = start + (end - start) * rng.choice([0.02, 0.2, 1.0])
        reason, place = workspace.shortened(start, end)
        line = [start + (k / 8) * (end - start) for k in range(9)]
        broken = [(margins(workspace, q) < 0) @ BITS for q in line[1:]]
        first = next((k for k, bits in enumerate(broken) if bits), None)
        cut += first is not None
        assert reason == (0 if first is None else broken[first])
        assert place.tobytes() == (end if first is None else line[first]).tobytes()
    assert 20 < cut < 150


@arms
def test_a_guard_clamps_as_numpy_does(arm):
    rng, bench = np.random.default_rng(2), Bench(arm, workspace=Workspace((-9, -9, -9), (9, 9, 9), (), -9.0))
    low, high = arm.stop_min + 0.05, arm.stop_max - 0.05
    for _ in range(200):
        target, here = rng.uniform(-4, 4, 7), bench.guard._target
        bench.command(target)
        wanted = np.clip(np.clip(target, low, high), here - 0.35, here + 0.35)
        assert bench.guard._target.tobytes() == wanted.tobytes()
        bench.run(0.002)
