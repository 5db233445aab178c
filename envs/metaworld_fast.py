"""Meta-World's step without its overhead: same physics calls, same numbers, two to seven times faster.

What costs time in Meta-World is not MuJoCo but looking bodies up by name, walking over contact objects, scipy rotations
and arrays of one number. A task's own methods are kept; copies of them run with faster helpers and cached views. Nothing
in Meta-World is patched: the copies live in a subclass.
"""

from __future__ import annotations

import math
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from .gl import load_mujoco
from .metaworld_rewards import REPLACED, caging_reward

mujoco = load_mujoco()

_KEPT = {"__init__", "reset_model", "_reset_hand"}
"""Methods that run as Meta-World wrote them: once per episode, and they use the real `data`."""


def lean_class(task: type) -> type:
    """A subclass of a Meta-World task class whose observation and reward methods run with the faster helpers."""
    methods = {name: _with_helpers(value) for name, value in vars(task).items() if name not in _KEPT}
    methods = {name: value for name, value in methods.items() if value is not None}
    own = {} if "_gripper_caging_reward" in methods else {"_gripper_caging_reward": caging_reward}
    return type(task.__name__, (task,), {**methods, **own, "touching_object": touching_object})


def _with_helpers(value: Any) -> Any:
    """A copy of a method, static method or property with `REPLACED` globals; None for anything else."""
    if isinstance(value, FunctionType):
        return _copied(value)
    if isinstance(value, staticmethod) and isinstance(value.__func__, FunctionType):
        return staticmethod(_copied(value.__func__))
    if isinstance(value, property) and isinstance(value.fget, FunctionType):
        return property(_copied(value.fget))
    return None


def _copied(function: FunctionType) -> FunctionType:
    # `evaluate_state` hides in a decorator that only asserts that a task was set, which `MetaWorld` does.
    if function.__code__.co_name == "inner" and function.__code__.co_freevars == ("func",):
        assert function.__closure__ is not None
        function = function.__closure__[0].cell_contents
    names = {name: value for name, value in REPLACED.items() if name in function.__globals__}
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


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
        self._mocap, self._turn, self._control = sim.data.mocap_pos[0], sim.data.mocap_quat[0], sim.data.ctrl
        self._hand = views.body("hand").xpos
        self._right, self._left = views.body("rightclaw").xpos, views.body("leftclaw").xpos

    def __call__(self, action: np.ndarray) -> tuple[np.ndarray, float, dict[str, Any]]:
        """Apply `action` (4,) float32 within [-1, 1]. Returns observation (39,) float64, reward and numbers."""
        sim = self._sim
        target = self._mocap + action[:3] * sim.action_scale
        np.minimum(np.maximum(target, sim.mocap_low, out=target), sim.mocap_high, out=self._mocap)
        self._turn[:] = (1.0, 0.0, 1.0, 0.0)
        self._control[:] = (action[3], -action[3])
        # Meta-World also computes contact forces per body, which nothing reads, and moves target sites, which
        # the forward pass moves back. The forward pass itself stays: it sets the solver's next warm start.
        mujoco.mj_step(self._model, self._data, nstep=sim.frame_skip)
        sim.curr_path_length += 1
        mujoco.mj_forward(self._model, self._data)
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
        current = np.zeros(18)
        current[:3] = self._hand
        apart = self._right - self._left
        current[3] = min(max(math.sqrt(apart.dot(apart)) / 0.1, 0.0), 1.0)
        position, quaternion = sim._get_pos_objects(), sim._get_quat_objects()
        for at in range(len(position) // 3):
            current[4 + 7 * at : 7 + 7 * at] = position[3 * at : 3 * at + 3]
            current[7 + 7 * at : 11 + 7 * at] = quaternion[4 * at : 4 * at + 4]
        frame = np.concatenate((current, sim._prev_obs, sim._get_pos_goal()))
        sim._prev_obs = current
        return np.minimum(np.maximum(frame, self._low, out=frame), self._high, out=frame)
