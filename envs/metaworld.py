"""Meta-World's 50 tasks with an obeyed seed, full save and restore, visible goals, and upright fast pictures.

The simulator, start states and rewards are Meta-World's own (McLean et al. 2025, version 3); this class cures the traps
around them: ignored seeds, hidden or clipped goals, resets that remember, partial save and restore.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

from .contacts import Contacts
from .metaworld_fast import LeanStep, lean_class, lean_policy
from .metaworld_starts import Starts
from .metaworld_state import Pristine, StateCodec, model_fields, moved_rows
from .metaworld_tasks import canonical
from .rendering import Mark, Pictures, Rod, check_cameras, settings, shared
from .upstream import POLICIES, TASK_CLASSES, mujoco

LONGEST = 500
"""Meta-World's own limit of steps per episode."""
OBJECT_BOUND = 10.0
"""Metres. Meta-World leaves object positions unbounded; a finite box holds everything within reach of the table."""
_STARTS = Starts()
"""Start states of this process: replicas of a reset, and every policy judged on the same resets, begin in the same one."""
_FRAME = 18
_GOAL = slice(36, 39)


class MetaWorld(gymnasium.Env[np.ndarray, np.ndarray]):
    """One Meta-World task. Observation (39,) float32: frame 18, previous frame 18, goal 3; action (4,) in [-1, 1].

    A frame is hand xyz, gripper opening, and position and quaternion of up to two objects. Actions outside [-1, 1] are
    clipped. `info` holds `success` (bool), Meta-World's numbers, `images` when `cameras` are given, `seed` at reset, and where
    `contacts` name bodies or geoms, `cost`: 1 while the arm touches one of them with more than `force` newtons, else 0.

    repeat: an action is held for as many steps of Meta-World, their rewards add up, and a success in any of them counts: 4 make 20
    decisions a second, and a quarter of the pictures. horizon counts decisions.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        horizon: int = 200,
        terminate_on_success: bool = False,
        cameras: tuple[str, ...] = (),
        image_size: int = 224,
        repeat: int = 1,
        contacts: Sequence[str] = (),
        force: float = 0.0,
    ) -> None:
        if repeat < 1 or not 1 <= horizon * repeat <= LONGEST:
            raise InputError(
                f"MetaWorld.horizon: got {horizon}, with repeat={repeat}, wanted both >= 1 and at most {LONGEST} steps of Meta-World."
            )
        if image_size < 1:
            raise InputError(f"MetaWorld.image_size: got {image_size}, wanted at least 1 pixel.")
        self.task = canonical(task)
        self.horizon, self.repeat = horizon, repeat
        self.terminate_on_success = terminate_on_success
        self.cameras = tuple(cameras)
        self.image_size = image_size
        self.render_mode = "rgb_array"
        self._sim = _build(self.task)
        check_cameras(self._sim.model, self.cameras)
        self._pristine = Pristine(self._sim)
        self._advance = LeanStep(self._sim)
        self._fields = model_fields(self._sim)
        self._policy = lean_policy(POLICIES[self.task])()
        self._contacts = Contacts(self._sim.model, contacts, force) if contacts else None
        self._care, self._careless = 1.0, _careless(self.task)
        self._low, self._high = self._sim.observation_space.low, self._sim.observation_space.high
        self.observation_space = _finite_box(self._sim.observation_space)
        self.action_space = Box(-1.0, 1.0, (4,), np.float32)
        self._pictures: Pictures | None = None
        self._codec: StateCodec | None = None
        self._frame = np.zeros(39)
        self._action = np.zeros(4, np.float32)
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed` (without one: of the next seed that this environment's generator draws).

        The episode depends on the task and the seed alone. options: `care` from 0 to 1, in a task with a wall how far the scripted expert
        minds it (0: it goes as if there were none). Returns the observation (39,) and `info`.
        """
        care = float((options or {}).get("care", 1.0))
        if not 0 <= care <= 1 or (care < 1 and self._careless is None):
            raise InputError(
                f"MetaWorld.reset: got care {care} in {self.task}, wanted a number from 0 to 1, and 1 in a task without a wall."
            )
        self._care = care
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._start_from(episode)
        info = self._with_images({"success": False, "seed": episode})
        return self._frame.astype(np.float32), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action (4,). Raises `InputError` for a wrong shape, NaN, or an episode that is over."""
        self.simulate(action)
        return self.outcome()

    def simulate(self, action: np.ndarray) -> None:
        """The physics of a step (for `repeat`, of its first), most of it in MuJoCo. Raises `InputError` like `step`."""
        if self._over:
            raise InputError(f"MetaWorld.step: got a step after the episode's end ({self.task}). Call reset first.")
        self._action = _checked(action)
        self._advance.simulate(self._action)

    def outcome(self) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """What `step` returns for the action that was simulated last."""
        frame, reward, numbers = self._advance.outcome(self._action)
        success, touched = bool(numbers["success"]), self._touching()
        for _ in range(self.repeat - 1):
            self._advance.simulate(self._action)
            frame, more, numbers = self._advance.outcome(self._action)
            reward, success = reward + more, success or bool(numbers["success"])
            touched = touched or self._touching()
        self._frame = frame
        info = {name: float(value) for name, value in numbers.items()}
        info["success"] = success
        if self._contacts is not None:
            info["cost"] = float(touched)
        terminated = self.terminate_on_success and success
        truncated = self._sim.curr_path_length >= self.horizon * self.repeat
        self._over = terminated or truncated
        return frame.astype(np.float32), float(reward), terminated, truncated, self._with_images(info)

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """Meta-World's scripted action (4,) float32 in [-1, 1] for an observation (39,). It remembers nothing."""
        seen = np.asarray(observation, dtype=np.float64)
        action = np.clip(self._policy.get_action(seen), -1.0, 1.0)
        if self._care < 1:
            assert self._careless is not None  # `reset` has seen to it
            action = self._care * action + (1 - self._care) * np.clip(self._careless.get_action(seen), -1.0, 1.0)
        return action.astype(np.float32)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (39,) as if the objects and the goal stood elsewhere by `offset` (3,), in metres."""
        shifted = np.array(observation, dtype=np.float32)
        for start in (0, _FRAME):
            shifted[start + 4 : start + 7] += offset
            if np.any(shifted[start + 11 : start + _FRAME]):  # a second object
                shifted[start + 11 : start + 14] += offset
        shifted[_GOAL] += offset
        return shifted

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here in any instance of this task, (S,) float64."""
        return np.concatenate([[float(self._over)], self._frame, self._states().pack()])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state`. Returns its observation (39,). Raises `InputError` on a wrong length."""
        codec = self._states()
        state = np.asarray(state, dtype=np.float64)
        codec.unpack(state[40:] if state.ndim == 1 else state)
        self._frame = state[1:40].copy()
        self._over = bool(state[0])
        return self._frame.astype(np.float32)

    @property
    def render_settings(self) -> dict[str, Any]:
        """What determines the pixels besides the state. Raises `InputError` where pictures are switched off."""
        return settings(self.image_size)

    def render(self, camera: str | None = None, drawn: Sequence[Mark | Rod] = ()) -> np.ndarray:
        """Upright picture (image_size, image_size, 3) uint8 by a named camera (default: the first, else `corner2`), marks drawn into it."""
        camera = camera or (self.cameras[0] if self.cameras else "corner2")
        check_cameras(self._sim.model, (camera,))
        if self._pictures is None:
            self._pictures = shared(self.task, self._sim.model, self.image_size)
        return self._pictures.take(self._sim.model, self._sim.data, camera, drawn)

    def close(self) -> None:
        """Let go of the GL context, if a picture was ever taken; the last environment of a task frees it."""
        self._pictures = None

    def _start_from(self, seed: int) -> None:
        kept = _STARTS.get(self.task, seed)
        if kept is not None:
            self.set_state(kept)
            return
        self._start(seed)
        _STARTS.put(self.task, seed, self.get_state())

    def _start(self, seed: int) -> None:
        """Meta-World's own start state of `seed`: drawn by one `reset`, then settled by another with the draw frozen.

        Meta-World moves the hand to its place four times for that. Only the last time shows in the result (bit for bit,
        on all tasks), so the others are left out.
        """
        sim = self._sim
        self._pristine.restore()
        sim._freeze_rand_vec = False
        sim.seed(seed)
        with _hand_left_alone(sim):
            sim.reset()
        drawn = sim._last_rand_vec
        self._pristine.restore()
        sim._freeze_rand_vec, sim._last_rand_vec = True, drawn
        with _hand_left_alone(sim):
            sim.reset_model()  # moves bodies and sites in the model, where the hand's way may depend on them
        mujoco.mj_resetData(sim.model, sim.data)
        frame = sim.reset_model()
        sim._prev_obs = frame[:_FRAME].copy()
        frame[_FRAME : 2 * _FRAME] = sim._prev_obs
        self._frame = np.clip(frame, self._low, self._high)
        self._over = False

    def _states(self) -> StateCodec:
        if self._codec is None:
            if self._over and not self._frame.any():
                self._start(0)
                self._over = True
            self._codec = StateCodec(self._sim, moved_rows(self._sim, self._fields))
        return self._codec

    def _touching(self) -> bool:
        """Whether the arm touches what `contacts` name."""
        return self._contacts is not None and self._contacts.touching(self._sim.model, self._sim.data)

    def _with_images(self, info: dict[str, Any]) -> dict[str, Any]:
        if self.cameras:
            info["images"] = {camera: self.render(camera) for camera in self.cameras}
        return info


@contextlib.contextmanager
def _hand_left_alone(sim: Any) -> Iterator[None]:
    sim._reset_hand = lambda *_: setattr(sim, "init_tcp", sim.tcp_center)
    try:
        yield
    finally:
        del sim._reset_hand


def _build(task: str) -> Any:
    """Meta-World's own environment, goal visible, its random starts drawn from its own generator."""
    sim = lean_class(TASK_CLASSES[task])()
    sim._partially_observable = False
    # The cached space still hides the goal (bounds 0), and Meta-World clips observations to it.
    sim.__dict__.pop("sawyer_observation_space", None)
    sim.observation_space = sim.sawyer_observation_space
    sim._set_task_called = True
    sim.seeded_rand_vec = True
    return sim


def _careless(task: str) -> Any:
    """The scripted policy of the same task without its wall; None where it has none."""
    plain = task.replace("-wall", "")
    return lean_policy(POLICIES[plain])() if plain != task and plain in POLICIES else None


def _finite_box(space: Box) -> Box:
    low = np.maximum(space.low, -OBJECT_BOUND).astype(np.float32)
    high = np.minimum(space.high, OBJECT_BOUND).astype(np.float32)
    return Box(low, high, dtype=np.float32)


def _checked(action: np.ndarray) -> np.ndarray:
    """The action as (4,) float32 within [-1, 1]."""
    action = np.asarray(action, dtype=np.float32)
    if action.shape != (4,):
        raise InputError(f"MetaWorld.step: got an action of shape {action.shape}, wanted (4,): xyz and gripper.")
    numbers = action.tolist()
    if max(numbers) <= 1.0 and min(numbers) >= -1.0 and not math.isnan(sum(numbers)):
        return action
    if not np.isfinite(action).all():
        raise InputError("MetaWorld.step: got NaN or infinity in the action, wanted numbers in [-1, 1].")
    return np.clip(action, -1.0, 1.0)
