"""Reaching past a zone with the arms of robosuite (Zhu et al. 2020): Franka Panda, Sawyer, Kuka IIWA, UR5e, all with one gripper.

The same task on other bodies, so that a reward learned from films of one arm can be judged on films of another. robosuite 1.5.2 names a
requirement (mink 0.0.5) that wants numpy below 2 and that nothing here imports: install the extra `robosuite`, then
`pip install --no-deps robosuite==1.5.2`.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

from .gl import mujoco
from .preferred import Preferred
from .rendering import Mark, Pictures, Rod, check_cameras, settings

ROBOTS = ("Panda", "Sawyer", "IIWA", "UR5e")
NEAR = 0.03
"""Metres from the goal that count as success."""
GAIN = 50.0
"""The expert's push per metre: full speed until 2 cm before the goal."""
_GOALS = np.array([[0.26, -0.10, -0.05], [0.33, 0.10, 0.05]])
"""Metres from where the hand starts: forward, to the side, up; least and most."""
_ASIDE = np.array([0.35, 0.35])
"""Where robosuite's cube is put, which this task does not use."""
_SPEC = mujoco.mjtState.mjSTATE_INTEGRATION


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """One arm over a table. Observation (6,) float32: hand xyz, goal xyz; action (4,) in [-1, 1]: xyz and a gripper that does nothing here."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    forward = np.array([1.0, 0.0])

    def __init__(self, robot: str = "Panda", horizon: int = 100, image_size: int = 84) -> None:
        if robot not in ROBOTS:
            raise InputError(f"robosuite.robot: got {robot!r}, wanted one of {', '.join(ROBOTS)}.")
        self.robot, self.horizon, self.image_size = robot, horizon, image_size
        self.task = "robosuite-reach"
        self.render_mode = "rgb_array"
        self.observation_space = Box(-2.0, 2.0, (6,), np.float32)
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self._sim = _built(robot)
        self._goal, self._elapsed, self._over = np.zeros(3), 0, True
        self._pictures: Pictures | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`: the arm always at the same place, the goal drawn."""
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._sim.reset()
        cube = self._model.joint("cube_joint0").qposadr[0]
        self._data.qpos[cube : cube + 2] = _ASIDE
        mujoco.mj_forward(self._model, self._data)
        low, high = _GOALS
        self._goal = self._hand() + np.random.default_rng([episode, 59]).uniform(low, high)
        self._elapsed, self._over = 0, False
        return self._observation(), {"success": False, "seed": episode}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action (4,), clipped to [-1, 1]. Raises `InputError` for a wrong shape, NaN, or an episode that is over."""
        if self._over:
            raise InputError("robosuite.step: got a step after the episode's end. Call reset first.")
        push = np.asarray(action, dtype=np.float64)
        if push.shape != (4,) or not np.isfinite(push).all():
            raise InputError(f"robosuite.step: got action {action}, wanted four finite numbers in [-1, 1].")
        whole = np.zeros(self._sim.action_dim)
        whole[:3] = np.clip(push[:3], -1, 1)
        self._sim.step(whole)
        self._elapsed += 1
        self._over = self._elapsed >= self.horizon
        gap = float(np.linalg.norm(self._goal - self._hand()))
        return self._observation(), -gap, False, self._over, {"success": gap < NEAR}

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """Straight to the goal, (4,) float32 in [-1, 1]."""
        push = np.clip(GAIN * (observation[3:6] - observation[:3]), -1, 1)
        return np.append(push, 0.0).astype(np.float32)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (6,) as if the goal stood elsewhere by `offset` (3,), in metres."""
        shifted = np.array(observation, dtype=np.float32)
        shifted[3:6] += offset
        return shifted

    def places(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hand, what has to get to the goal (the hand), and goal, (3,) each."""
        hand = np.asarray(observation[:3], dtype=np.float64)
        return hand, hand, np.asarray(observation[3:6], dtype=np.float64)

    def get_state(self) -> np.ndarray:
        """MuJoCo's whole state, the goal, and how far the episode is, (S,) float64."""
        state = np.empty(mujoco.mj_stateSize(self._model, _SPEC))
        mujoco.mj_getState(self._model, self._data, state, _SPEC)
        return np.concatenate([self._goal, [self._elapsed, self._over], state])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state` of the same arm. Returns its observation (6,)."""
        state = np.asarray(state, dtype=np.float64)
        size = 5 + mujoco.mj_stateSize(self._model, _SPEC)
        if state.shape != (size,):
            raise InputError(
                f"robosuite.set_state: got shape {state.shape}, wanted ({size},). Use one of the same arm."
            )
        self._goal, self._elapsed, self._over = state[:3].copy(), int(state[3]), bool(state[4])
        mujoco.mj_setState(self._model, self._data, state[5:], _SPEC)
        mujoco.mj_forward(self._model, self._data)
        mujoco.mj_setState(self._model, self._data, state[5:], _SPEC)
        self._sim.robots[0].composite_controller.part_controllers["right"].update(force=True)  # it may hold an old pose
        return self._observation()

    @property
    def render_settings(self) -> dict[str, Any]:
        """What determines the pixels besides the state."""
        return {**settings(self.image_size), "robot": self.robot}

    def render(self, camera: str | None = None, drawn: Sequence[Mark | Rod] = ()) -> np.ndarray:
        """Upright picture (image_size, image_size, 3) uint8 with marks and the goal (a green post) in it."""
        camera = camera or "frontview"
        check_cameras(self._model, (camera,))
        if self._pictures is None:
            self._pictures = Pictures(self._model, self.image_size)
        x, y, z = self._goal.tolist()
        goal = Mark((x, y, z), 0.015, 0.015, (0.1, 0.8, 0.2, 1.0))
        return self._pictures.take(self._model, self._data, camera, [*drawn, goal])

    def close(self) -> None:
        """Free the GL context, if a picture was ever taken."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None

    @property
    def _model(self) -> Any:
        return self._sim.sim.model._model

    @property
    def _data(self) -> Any:
        return self._sim.sim.data._data

    def _hand(self) -> np.ndarray:
        return np.array(self._data.site("gripper0_right_grip_site").xpos)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._hand(), self._goal]).astype(np.float32)


@lru_cache(maxsize=4)
def _library() -> Any:
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it warns of every limb that an arm lacks
    try:
        library = importlib.import_module("robosuite")
    except ImportError as error:
        raise InputError(
            f"robosuite: got no such package ({error}), wanted robosuite 1.5.2.\n"
            "pip install -e '.[robosuite]', then pip install --no-deps robosuite==1.5.2."
        ) from error
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    return library


def _built(robot: str) -> Any:
    """robosuite's table with one arm, its start without noise, pictures left to us."""
    library = _library()
    controllers = importlib.import_module("robosuite.controllers")
    how = controllers.load_composite_controller_config(controller="BASIC", robot=robot)
    sim = library.make(
        "Lift", robots=robot, gripper_types="PandaGripper", controller_configs=how, initialization_noise=None, control_freq=20,
        has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, use_object_obs=False, ignore_done=True, hard_reset=False,
    )  # fmt: skip
    model = sim.sim.model._model
    model.geom_rgba[model.geom_group == 0, 3] = 0.0  # shapes that only collide
    return sim


def robosuite_preferred(
    task: str = "reach", arm: str = "Panda", preference: str = "avoid_fixed", horizon: int = 32, repeat: int = 3, image_size: int = 84
) -> Preferred:  # fmt: skip
    """Reaching past a visible zone with one of robosuite's arms. Raises `InputError` for another task, an unknown arm, or without robosuite."""
    if task != "reach":
        raise InputError(f"robosuite.task: got {task!r}, wanted reach, its only task here.")
    return Preferred(Reach(arm, horizon * repeat, image_size), preference, horizon, repeat)
