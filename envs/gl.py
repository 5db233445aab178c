"""Load MuJoCo whatever `MUJOCO_GL` says, and open a GL context only when a picture is wanted.

`import mujoco` loads the GL library that `MUJOCO_GL` names and dies where it is missing, even for work without pictures.
Here the import is repeated without GL then, and the missing library is reported when a picture is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from robopref.arrays import InputError

DISABLED = frozenset({"disable", "disabled", "off", "false", "0"})
_LIBRARY_FAULTS = (ImportError, AttributeError, RuntimeError, OSError)
"""What a missing or broken GL library raises, by backend (PyOpenGL: AttributeError on a None library)."""


@contextlib.contextmanager
def _backend(name: str) -> Iterator[None]:
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = name
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL") if before is None else os.environ.update(MUJOCO_GL=before)


def load_mujoco() -> ModuleType:
    """The `mujoco` package, loaded without GL where the backend that `MUJOCO_GL` names cannot be loaded."""
    try:
        return importlib.import_module("mujoco")
    except _LIBRARY_FAULTS:
        with _backend("disable"):
            return importlib.import_module("mujoco")


mujoco: Any = load_mujoco()


def backend() -> str:
    """The GL backend for pictures: `MUJOCO_GL`, or without it EGL on a Linux machine without a screen."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if chosen in DISABLED:
        raise InputError(
            f"MetaWorld.render: got MUJOCO_GL={chosen}, which switches pictures off.\n"
            "Unset it or set MUJOCO_GL=egl to render; work on states needs no pictures."
        )
    if chosen in {"egl", "osmesa"}:
        return chosen
    if platform.system() == "Linux":
        return "glfw" if os.environ.get("DISPLAY") and chosen else "egl"
    return "cgl" if platform.system() == "Darwin" else "glfw"


def open_context(width: int, height: int) -> Any:
    """A current GL context of that size. Raises `InputError` where no GL library can give one."""
    name = backend()
    _load_triton_first()
    try:
        module = importlib.import_module(f"mujoco.{name}")
        context = module.GLContext(width, height)
        context.make_current()
    except _library_faults() as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise InputError(
            f"MetaWorld.render: got no GL context from {name} ({reason[:120]}).\n"
            "Pictures need EGL or OSMesa: install Debian's `libegl1 libgl1-mesa-dri` (or `libosmesa6`, MUJOCO_GL=osmesa).\n"
            "Work on states needs neither: leave `cameras` empty and do not call render."
        ) from fault
    return context


def _load_triton_first() -> None:
    """Mesa's software renderer and triton (a part of PyTorch's CUDA wheels) both carry LLVM.

    Where Mesa's is loaded first, a later import of triton, which diffusers makes, ends the process with a segmentation fault.
    """
    if importlib.util.find_spec("triton") is not None:
        with contextlib.suppress(ImportError):
            importlib.import_module("triton")


def _library_faults() -> tuple[type[Exception], ...]:
    """Evaluated after a fault only: PyOpenGL fixes its platform at import, and the backend has to choose it first."""
    error: Any = importlib.import_module("OpenGL.error")
    return (*_LIBRARY_FAULTS, error.Error)
