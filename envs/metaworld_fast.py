"""Meta-World's step without its overhead: same physics calls, same numbers, two to seven times faster.

What costs time in Meta-World is not MuJoCo but looking bodies up by name, walking over contact objects, scipy rotations
and arrays of one number. A task's own methods are kept; copies of them run with faster helpers and cached views. Nothing
in Meta-World is patched: the copies live in a subclass.
"""

from __future__ import annotations

import copy
import importlib
import math
from functools import lru_cache
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from .metaworld_rewards import REPLACED, caging_reward
from .upstream import mujoco

_KEPT = {"__init__", "reset_model", "_reset_hand"}
"""Methods that run as Meta-World wrote them: once per episode, and they use the real `data`."""


def lean_class(task: type) -> type:
    """A subclass of a Meta-World task class whose observation and reward methods run with the faster helpers."""
    own: dict[str, Any] = {"touching_object": touching_object, "_initialize_simulation": _initialize_simulation}
    if "_gripper_caging_reward" not in vars(task):
        own["_gripper_caging_reward"] = caging_reward
    if "_reset_hand" not in vars(task):
        own["_reset_hand"] = _reset_hand
    return _subclass(task, REPLACED, own)


@lru_cache(maxsize=8)
def _parsed(path: str) -> Any:
    return mujoco.MjModel.from_xml_path(path)


def _initialize_simulation(self: Any) -> tuple[Any, Any]:
    """Model and data as in gymnasium's `MujocoEnv`, the model copied from the first parse of its file (0.2 s each)."""
    model = copy.copy(_parsed(self.fullpath))
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
    model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
    return model, mujoco.MjData(model)


def _reset_hand(self: Any, steps: int = 50) -> None:
    """`SawyerXYZEnv._reset_hand` in one call of the simulator: what it sets before each of its steps does not change."""
    data = self.data
    mocap = self.model.body_mocapid[data.body("mocap").id]
    data.mocap_pos[mocap], data.mocap_quat[mocap], data.ctrl[:] = self.hand_init_pos, (1, 0, 1, 0), (-1, 1)
    mujoco.mj_step(self.model, data, nstep=steps * self.frame_skip)
    self.init_tcp = self.tcp_center


def lean_policy(policy: type) -> type:
    """A subclass of a scripted policy that does not warn, at every step, that its action will be clipped."""
    return _subclass(policy, {"move": _move}, {})


def _move(from_xyz: np.ndarray, to_xyz: np.ndarray, p: float) -> np.ndarray:
    return p * (to_xyz - from_xyz)


def _subclass(base: type, replaced: dict[str, Any], own: dict[str, Any]) -> type:
    """A subclass with copies of `base`'s methods that see other global names, and a few methods of our own."""
    names = dict(vars(importlib.import_module(base.__module__)))
    names.update((name, value) for name, value in replaced.items() if name in names)
    methods = {name: _with_names(value, names) for name, value in vars(base).items() if name not in _KEPT}
    copied = {name: value for name, value in methods.items() if value is not None}
    lean = type(base.__name__, (base,), {**copied, **own})
    names[base.__name__] = lean  # static methods are called by the class's name
    return lean


def _with_names(value: Any, names: dict[str, Any]) -> Any:
    """A copy of a method, static method or property that sees `names` as its globals; None for anything else."""
    if isinstance(value, FunctionType):
        return _copied(value, names)
    if isinstance(value, staticmethod) and isinstance(value.__func__, FunctionType):
        return staticmethod(_copied(value.__func__, names))
    if isinstance(value, property) and isinstance(value.fget, FunctionType):
        return property(_copied(value.fget, names))
    return None


def _copied(function: FunctionType, names: dict[str, Any]) -> FunctionType:
    # `evaluate_state` hides in a decorator that only asserts that a task was set, which `MetaWorld` does.
    if function.__code__.co_name == "inner" and function.__code__.co_freevars == ("func",):
        assert function.__closure__ is not None
        function = function.__closure__[0].cell_contents
    twin = FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def touching_object(self: Any, object_geom_id: int) -> bool:
    """`SawyerXYZEnv.touching_object`: whether both pads press on the geom, read from the contact arrays."""
    contact = self.data.contact
    pads = {self.data.geom("leftpad_geom").id: 0.0, self.data.geom("rightpad_geom").id: 0.0}
    pairs = contact.geom.tolist()
    for index, (one, other) in enumerate(pairs):
        if one == object_geom_id or other == object_geom_id:
            pad = one if one in pads else other
            if pad in pads:
                pads[pad] += self.data.efc_force[contact.efc_address[index]]
    return all(force > 0 for force in pads.values())


class Views:
    """Stands in for `MjData` while a reward is computed: names are looked up once, arrays are views made once."""

    def __init__(self, model: Any, data: Any) -> None:
        self._data = data
        self._model = model
        self._bodies: dict[str, Any] = {}
        self._sites: dict[str, Any] = {}
        self._geoms: dict[str, Any] = {}
        self._joints: dict[str, Any] = {}
        self.qpos, self.qvel, self.site_xpos = data.qpos, data.qvel, data.site_xpos

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def body(self, name: str) -> Any:
        """Id, position, quaternion and matrix of a body."""
        if name not in self._bodies:
            i, d = self._model.body(name).id, self._data
            self._bodies[name] = SimpleNamespace(id=i, xpos=d.xpos[i], xquat=d.xquat[i], xmat=d.xmat[i])
        return self._bodies[name]

    def site(self, name: str) -> Any:
        """Id, position and matrix of a site."""
        if name not in self._sites:
            i, d = self._model.site(name).id, self._data
            self._sites[name] = SimpleNamespace(id=i, xpos=d.site_xpos[i], xmat=d.site_xmat[i])
        return self._sites[name]

    def geom(self, name: str) -> Any:
        """Id, position and matrix of a geom."""
        if name not in self._geoms:
            i, d = self._model.geom(name).id, self._data
            self._geoms[name] = SimpleNamespace(id=i, xpos=d.geom_xpos[i], xmat=d.geom_xmat[i])
        return self._geoms[name]

    def joint(self, name: str) -> Any:
        """A joint's accessor; its arrays are views."""
        if name not in self._joints:
            joint = self._data.joint(name)
            self._joints[name] = SimpleNamespace(id=joint.id, qpos=joint.qpos, qvel=joint.qvel)
        return self._joints[name]


class LeanStep:
    """One task's step: action in, clipped float64 observation, reward and Meta-World's numbers out."""

    def __init__(self, sim: Any) -> None:
        self._sim, self._model, self._data = sim, sim.model, sim.data
        self._views = views = Views(sim.model, sim.data)
        self._low, self._high = sim.observation_space.low, sim.observation_space.high
        self._reach = tuple(zip(sim.mocap_low.tolist(), sim.mocap_high.tolist(), strict=True))
        self._mocap, self._turn, self._control = sim.data.mocap_pos[0], sim.data.mocap_quat[0], sim.data.ctrl
        self._hand = views.body("hand").xpos
        self._right, self._left = views.body("rightclaw").xpos, views.body("leftclaw").xpos

    def simulate(self, action: np.ndarray) -> None:
        """Apply `action` (4,) float32 within [-1, 1]: `frame_skip` substeps and a forward pass, bit for bit as Meta-World does them.

        Meta-World also computes contact forces per body, which nothing reads, and moves target sites, which its forward
        pass moves back. Two calls, both long, on purpose: each lets go of Python's lock, and threads that wait for it after
        every short call lose more than the collisions of the first substep, which the forward pass has found already.
        """
        sim = self._sim
        moves = (action * sim.action_scale).tolist()
        at = zip(self._mocap.tolist(), moves, self._reach, strict=False)
        self._mocap[:] = [min(max(position + move, low), high) for position, move, (low, high) in at]
        grip = float(action[3])
        self._control[:] = (grip, -grip)
        self._turn[:] = (1.0, 0.0, 1.0, 0.0)
        mujoco.mj_step(self._model, self._data, nstep=sim.frame_skip)
        mujoco.mj_forward(self._model, self._data)

    def outcome(self, action: np.ndarray) -> tuple[np.ndarray, float, dict[str, Any]]:
        """Observation (39,) float64, reward and numbers after the action that was simulated last."""
        sim = self._sim
        sim.curr_path_length += 1
        sim.data = self._views
        try:
            frame = self._observe()
            reward, numbers = sim.evaluate_state(frame, action)
        finally:
            sim.data = self._data
        return frame, reward, numbers

    def _observe(self) -> np.ndarray:
        """`SawyerXYZEnv._get_obs`, then clipped to Meta-World's own bounds."""
        sim = self._sim
        frame = np.zeros(39)
        frame[:3] = self._hand
        apart = self._right - self._left
        frame[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        position, quaternion = sim._get_pos_objects(), sim._get_quat_objects()
        if len(position) == 3:
            frame[4:7] = position
            frame[7:11] = quaternion
        else:
            frame[4:7], frame[11:14] = position[:3], position[3:]
            frame[7:11], frame[14:18] = quaternion[:4], quaternion[4:]
        frame[18:36] = sim._prev_obs
        frame[36:] = sim._get_pos_goal()
        sim._prev_obs = frame[:18].copy()
        np.maximum(frame, self._low, out=frame)
        return np.minimum(frame, self._high, out=frame)
