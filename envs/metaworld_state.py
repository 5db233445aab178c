"""Everything a running Meta-World task consists of, as one float64 vector.

Meta-World keeps its state in four places: MuJoCo's integration state, body and site positions that a reset writes into
the *model*, numbers that live as Python attributes of the task (targets, initial poses, last random vector, previous
frame), and arrays of the task that alias MuJoCo memory. The first three are saved; the fourth follows from them.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .gl import mujoco

_SPEC = mujoco.mjtState.mjSTATE_INTEGRATION
_MODEL_FIELDS = ("body_pos", "body_quat", "site_pos", "site_quat")
_CONSTANT = {
    "width", "height", "init_qpos", "init_qvel", "frame_skip", "render_mode", "camera_id", "camera_name",
    "current_seed", "action_scale", "num_resets", "action_rot_scale", "hand_low", "hand_high", "mocap_low",
    "mocap_high", "hand_init_pos", "goal", "seeded_rand_vec", "_freeze_rand_vec", "_partially_observable",
    "_set_task_called", "_obs_obj_max_len", "_np_random_seed", "discrete_goal_space", "active_discrete_goal",
    "_last_stable_obs",
}  # fmt: skip
"""Attributes that no reset and no step changes, or that are never read."""
_NONE = float(np.finfo(np.float64).min)
"""Stands for None in a vector; unlike NaN it equals itself."""


def _aliases(array: np.ndarray) -> bool:
    """Whether `array` looks into memory that numpy does not own, that is MuJoCo's."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.owndata:
            return False
        base = base.base
    return True


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, np.number, np.bool_))


class Pristine:
    """A task as it was right after construction, so that every reset can start from there (and from nothing else)."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._state = _integration_state(env)
        self._model = {name: getattr(env.model, name).copy() for name in _MODEL_FIELDS}
        self._attributes = {name: _saved(value) for name, value in vars(env).items()}

    def restore(self) -> None:
        """Undo everything that resets and steps did to the task, its model and its data."""
        env = self._env
        for name in vars(env).keys() - self._attributes.keys():
            delattr(env, name)
        for name, value in self._attributes.items():
            setattr(env, name, _saved(value))
        for name, value in self._model.items():
            getattr(env.model, name)[:] = value
        mujoco.mj_resetData(env.model, env.data)
        mujoco.mj_setState(env.model, env.data, self._state, _SPEC)
        mujoco.mj_forward(env.model, env.data)
        mujoco.mj_setState(env.model, env.data, self._state, _SPEC)


def _saved(value: Any) -> Any:
    """A copy of what a task could edit in place; anything else is kept as it is."""
    if isinstance(value, np.ndarray):
        return value if _aliases(value) else value.copy()
    return copy.deepcopy(value) if isinstance(value, (dict, list)) else value


def _integration_state(env: Any) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(env.model, _SPEC))
    mujoco.mj_getState(env.model, env.data, state, _SPEC)
    return state


class StateCodec:
    """Task <-> vector. The layout is a function of the task alone, so any instance reads any other's vector.

    Built right after a seeded reset. `rows` says which rows of the model's position arrays that task's resets move.
    """

    def __init__(self, env: Any, rows: dict[str, np.ndarray]) -> None:
        self._env = env
        self._size = mujoco.mj_stateSize(env.model, _SPEC)
        self._rows = rows
        own = {name: value for name, value in sorted(vars(env).items()) if name not in _CONSTANT}
        self._scalars = [name for name, value in own.items() if _is_number(value)]
        self._arrays = {
            name: (value.shape, value.dtype)
            for name, value in own.items()
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not _aliases(value)
        }
        self.length = len(self.pack())

    def pack(self) -> np.ndarray:
        """The whole state, (S,) float64."""
        env = self._env
        parts = [_integration_state(env)]
        parts += [getattr(env.model, field)[rows].ravel() for field, rows in self._rows.items()]
        parts += [np.array([_NONE if (v := getattr(env, k)) is None else float(v) for k in self._scalars])]
        parts += [np.asarray(getattr(env, k), dtype=np.float64).ravel() for k in self._arrays]
        return np.concatenate(parts)

    def unpack(self, state: np.ndarray) -> None:
        """Put the task into a packed state. Raises `InputError` for a vector of another length."""
        if state.shape != (self.length,):
            raise InputError(
                f"MetaWorld.set_state: got shape {state.shape}, wanted ({self.length},).\n"
                "Use a state of the same task, written by the same Meta-World version, without padding."
            )
        env, at = self._env, self._size
        for field, rows in self._rows.items():
            target = getattr(env.model, field)
            size = rows.size * target.shape[1]
            target[rows] = state[at : at + size].reshape(rows.size, target.shape[1])
            at += size
        for name in self._scalars:
            setattr(env, name, _like(getattr(env, name), float(state[at])))
            at += 1
        for name, (shape, dtype) in self._arrays.items():
            size = int(np.prod(shape))
            setattr(env, name, state[at : at + size].reshape(shape).astype(dtype))
            at += size
        physics = state[: self._size]
        mujoco.mj_setState(env.model, env.data, physics, _SPEC)
        mujoco.mj_forward(env.model, env.data)
        # The forward pass overwrites the solver's warm start, which belongs to the state: set it once more.
        mujoco.mj_setState(env.model, env.data, physics, _SPEC)


def _like(old: Any, value: float) -> Any:
    if value == _NONE:
        return None
    if isinstance(old, (bool, np.bool_)):
        return bool(value)
    return int(value) if isinstance(old, (int, np.integer)) else value


def moved_rows(env: Any, pristine: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of the model's position arrays that differ from `pristine`."""
    return {k: np.flatnonzero((getattr(env.model, k) != v).any(axis=1)) for k, v in pristine.items()}


def model_fields(env: Any) -> dict[str, np.ndarray]:
    """Copies of the model's arrays that Meta-World's resets may write."""
    return {name: getattr(env.model, name).copy() for name in _MODEL_FIELDS}
