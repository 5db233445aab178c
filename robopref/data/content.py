"""What an episode is, as a number: one hash over its content, so that a changed episode is noticed."""

from __future__ import annotations

import hashlib

import numpy as np

from robopref.arrays import Trajectory


def trajectory_hash(trajectory: Trajectory) -> str:
    """sha256 over everything that a store keeps exactly. Pictures are left out: video is lossy.

    A chunk of zeros of which nothing ran counts as no chunk, as the store writes both alike.
    """
    digest = hashlib.sha256()
    for word in (trajectory.task, str(trajectory.seed), trajectory.policy, trajectory.env):
        _add(digest, word.encode())
    _array(digest, trajectory.observation, np.float32)
    _array(digest, trajectory.action, np.float32)
    _array(digest, trajectory.reward, np.float32)
    _array(digest, trajectory.success, np.bool_)
    if trajectory.sim_state is not None:
        _add(digest, b"sim_state")
        _array(digest, trajectory.sim_state, np.float64)
    chunk, executed = trajectory.chunk, trajectory.executed
    if chunk is not None and executed is not None and (executed.any() or chunk.any()):
        _add(digest, b"chunk")
        _array(digest, chunk, np.float32)
        _array(digest, executed, np.bool_)
    for name in sorted(trajectory.extra):
        _add(digest, name.encode())
        _array(digest, trajectory.extra[name], np.float32)
    if trajectory.sentence:  # left out where there is none, so that episodes without words keep their hashes
        _add(digest, b"sentence")
        _add(digest, trajectory.sentence.encode())
    return digest.hexdigest()


def behaviour_hash(trajectory: Trajectory) -> str:
    """sha256 over what a rater sees: observations, actions, rewards and success. Names and policy do not count."""
    digest = hashlib.sha256()
    for array, kind in (
        (trajectory.observation, np.float32),
        (trajectory.action, np.float32),
        (trajectory.reward, np.float32),
        (trajectory.success, np.bool_),
    ):
        _array(digest, array, kind)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _array(digest: hashlib._Hash, array: np.ndarray, kind: type) -> None:
    _add(digest, str(array.shape).encode())
    digest.update(np.ascontiguousarray(array, dtype=kind).tobytes())
