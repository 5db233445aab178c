"""Made-up episodes for tests of what is on disk."""

import numpy as np

from robopref.arrays import Trajectory


def episode(number=0, steps=12, *, state=7, chunk=True, camera=False, task="push-v3", seed=None, expert=True):
    """A random episode; equal arguments give equal content."""
    rng = np.random.default_rng(number)

    def draw(*shape):
        return rng.uniform(-1, 1, size=shape).astype(np.float32)

    return Trajectory(
        observation=draw(steps, 5),
        action=draw(steps, 2),
        reward=draw(steps) + 1,
        success=rng.random(steps) > 0.8,
        task=task,
        seed=number if seed is None else seed,
        policy=f"policy-{number % 2}",
        env="made-up",
        sim_state=rng.normal(size=(steps, state)) if state else None,
        chunk=draw(steps, 4, 2) if chunk else None,
        executed=rng.random((steps, 4)) > 0.5 if chunk else None,
        images={"corner": smooth_pictures(steps, number)} if camera else {},
        extra={"expert_action": draw(steps, 2), "distance": draw(steps, 1)} if expert else {},
    )


def smooth_pictures(steps, number):
    """(T, 32, 48, 3) uint8 that move, and that video keeps well."""
    y, x = np.mgrid[0:32, 0:48]
    t = np.arange(steps)[:, None, None]
    planes = [4 * (x + t) % 256, 100 + number % 50 + 0 * x + 0 * t, 3 * (y + 2 * t) % 256]
    ramps = np.stack(np.broadcast_arrays(*planes), axis=-1)
    return (40 + ramps * 0.6).astype(np.uint8)


def assert_equal_exactly(got, wanted):
    """Everything but pictures, bit for bit."""
    assert (got.task, got.seed, got.policy, got.env) == (wanted.task, wanted.seed, wanted.policy, wanted.env)
    for name in ("observation", "action", "reward", "success", "sim_state", "chunk", "executed"):
        ours, theirs = getattr(got, name), getattr(wanted, name)
        if theirs is None:
            assert ours is None, name
        else:
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs), name
    assert sorted(got.extra) == sorted(wanted.extra)
    for name, value in wanted.extra.items():
        assert np.array_equal(got.extra[name], value), name
