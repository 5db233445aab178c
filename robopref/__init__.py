"""robopref: preference-based policy learning in robotics.

Public names load lazily, so that `import robopref` and `robopref --help` do not wait for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Trajectory": "robopref.arrays",
    "Chunks": "robopref.types",
    "Dims": "robopref.types",
    "Draws": "robopref.types",
    "Observation": "robopref.types",
    "PreferenceBatch": "robopref.types",
    "Segments": "robopref.types",
    "TrajectoryStore": "robopref.data.store",
    "PreferenceStore": "robopref.data.preferences",
    "load": "robopref.checkpoint",
    "save": "robopref.checkpoint",
    "fit": "robopref.train",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"robopref has no {name!r}, only {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
