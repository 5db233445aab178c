"""Fast, upright, repeatable pictures of a MuJoCo model: no shadows, reflections or multisampling.

Measured with EGL in software at 224 x 224: Meta-World's defaults give 8 frames/s, these switches more than 60.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .gl import backend, mujoco, open_context

MAX_GEOMS = 2000
_UP_Z = 7
"""Row-major index of the world z part of a camera's own up direction in its rotation matrix."""


@dataclass(frozen=True)
class Mark:
    """A coloured post or disc that is drawn into the picture and touches nothing: no physics, no place in the model."""

    centre: tuple[float, float, float]
    """Metres, world frame."""
    radius: float
    half_height: float
    colour: tuple[float, float, float, float]
    """Red, green, blue, opacity in [0, 1]."""


@dataclass(frozen=True)
class Rod:
    """A rod between two points that is drawn into the picture and touches nothing."""

    begin: tuple[float, float, float]
    end: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float, float]


def check_cameras(model: Any, cameras: tuple[str, ...]) -> None:
    """Raise `InputError` with the names that exist unless the model has every one of `cameras`."""
    known = [model.camera(i).name for i in range(model.ncam)]
    for camera in cameras:
        if camera not in known:
            raise InputError(f"MetaWorld.cameras: got {camera!r}, wanted one of {', '.join(known)}.")


def settings(image_size: int) -> dict[str, Any]:
    """What determines the pixels besides the state; belongs beside every stored picture. Needs a GL backend to be chosen."""
    return {
        "height": image_size,
        "width": image_size,
        "shadows": False,
        "reflections": False,
        "multisampling": 0,
        "upright": True,
        "mujoco": mujoco.__version__,
        "gl": backend(),
    }


def shared(name: str, model: Any, image_size: int) -> Pictures:
    """The pictures of all environments of one name and size in this process: one GL context, however many environments.

    It is freed when the last environment lets go of it.
    """
    found = _shared.get((name, image_size))
    if found is None:
        found = _shared[name, image_size] = Pictures(model, image_size)
    return found


class Pictures:
    """Pictures of models that are alike but for places. Opens a GL context when constructed; `close` frees it."""

    def __init__(self, model: Any, image_size: int) -> None:
        model.vis.quality.shadowsize = 0
        model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = image_size
        self._context = open_context(image_size, image_size)
        self.backend = backend()
        self._scene = mujoco.MjvScene(model, MAX_GEOMS)
        for flag in ("mjRND_SHADOW", "mjRND_REFLECTION"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
        self._option = mujoco.MjvOption()
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._drawing = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawing)
        self._view = mujoco.MjrRect(0, 0, image_size, image_size)
        self._buffer = np.empty((image_size, image_size, 3), dtype=np.uint8)
        self._free = weakref.finalize(self, _free, self._drawing, self._context)
        # Also at interpreter exit, and before the GL library goes, which asked for it when the context above was opened: finalizers'
        # own turn may come after that, namely where another module has made one before the GL library was loaded.
        self._free.atexit = False
        atexit.register(self._free)

    def take(self, model: Any, data: Any, camera: str, drawn: Sequence[Mark | Rod] = ()) -> np.ndarray:
        """Upright picture (H, W, 3) uint8 of a model and its data by a named camera, an array of its own, with marks and rods in it."""
        self._context.make_current()
        index = model.camera(camera).id
        self._camera.fixedcamid = index
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._option, self._perturb, self._camera, everything, self._scene)
        for one in drawn:
            _add(self._scene, one)
        mujoco.mjr_render(self._view, self._scene, self._drawing)
        mujoco.mjr_readPixels(self._buffer, None, self._view, self._drawing)
        return np.ascontiguousarray(upright(self._buffer, data.cam_xmat[index]))

    def close(self) -> None:
        """Free the GL context. Further pictures need a new object."""
        self._free()


def upright(pixels: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """What a camera with a row-major rotation matrix (9,) saw, turned so that up in the world is up: (H, W, ...), a view.

    OpenGL counts rows from below. Meta-World's corner cameras hang upside down: those are turned by 180 degrees.
    """
    return pixels[:, ::-1] if rotation[_UP_Z] < 0 else pixels[::-1]


def _add(scene: Any, one: Mark | Rod) -> None:
    """Put a mark or a rod into a scene that is about to be drawn."""
    geom, colour = scene.geoms[scene.ngeom], np.array(one.colour, dtype=np.float32)
    kind = mujoco.mjtGeom.mjGEOM_CYLINDER if isinstance(one, Mark) else mujoco.mjtGeom.mjGEOM_CAPSULE
    size, centre = np.zeros(3), np.zeros(3)
    if isinstance(one, Mark):
        size, centre = np.array([one.radius, one.radius, one.half_height]), np.array(one.centre)
    mujoco.mjv_initGeom(geom, kind, size, centre, np.eye(3).ravel(), colour)
    if isinstance(one, Rod):
        mujoco.mjv_connector(geom, kind, one.radius, np.array(one.begin), np.array(one.end))
    scene.ngeom += 1


_shared: weakref.WeakValueDictionary[tuple[str, int], Pictures] = weakref.WeakValueDictionary()


def _free(drawing: Any, context: Any) -> None:
    context.make_current()
    drawing.free()
    context.free()
