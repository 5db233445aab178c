"""What a deployment is asked to be: the words of `robopref deploy`, checked before anything is connected."""

from __future__ import annotations

import ssl as tls
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from robopref.arrays import InputError

from .choices import chosen, nearest
from .chunk_queue import Mode
from .rosbridge import Dialect
from .scene import Place, place
from .topics import DRIVERS, Driver, Topics
from .views import Reach, View, view_of

KEYS = (
    "bridge", "policy", "checkpoint", "out", "seconds", "episode", "replicas", "hz", "mode", "arm", "robot", "space", "scale",
    "gripper", "goal", "objects", "driver", "dialect", "ca", "hash", "sentence", "task", "auto_arm",
)  # fmt: skip
_SHORT = {"arm": "arm", "space": "kind", "scale": "scale", "gripper": "gripper"}
"""Keys that are short for `robot.NAME`."""


@dataclass(frozen=True)
class Request:
    """One deployment. goal: None for one per episode."""

    bridge: str
    policy: str
    out: Path = Path("runs/deploy")
    hash: str = ""
    hz: float = 15.0
    mode: Mode = "real_time"
    view: View = field(default_factory=Reach)
    goal: Place | None = None
    objects: tuple[Place, ...] = ()
    driver: Driver | None = None
    dialect: Dialect = "ros2"
    ssl: tls.SSLContext | None = None
    sentence: str = ""
    auto_arm: bool = True
    """Whether the arm is armed without a person; see `AgentSettings`."""

    @property
    def topics(self) -> Topics:
        """Where the agent listens and speaks; the joints' names are those of the arm."""
        return Topics(arm=self.view.space.limits.name, dialect=self.dialect)


def check_keys(options: Mapping[str, str], plain: list[str]) -> None:
    """Raises `InputError` for words that `deploy` does not know."""
    unknown = plain + [key for key in options if key not in KEYS and not key.startswith("robot.")]
    if unknown:
        raise InputError(
            f"deploy: unknown {unknown[0]!r}.{nearest(unknown[0], KEYS)} Known: --demo, {', '.join(KEYS)}, robot.KEY.\n"
            "see `robopref deploy --help`"
        )


def request_of(options: Mapping[str, str]) -> Request:
    """The request of `key=value` words. Raises `InputError` for a value that is none."""
    for key in ("bridge", "policy"):
        if key not in options:
            raise InputError(
                f"deploy: got no {key}, wanted {key}=ws://HOST:PORT, or --demo\nsee `robopref deploy --help`"
            )
    driver = chosen("driver", options["driver"], DRIVERS) if "driver" in options else None
    modes = {name: name for name in get_args(Mode)}
    auto = options.get("auto_arm", "true")
    if auto not in ("true", "false"):
        raise InputError(
            f"auto_arm: got {auto!r}, wanted true, or false for an arm that moves only after Re-arm on the page."
        )
    return Request(
        options["bridge"], options["policy"], Path(options.get("out", "runs/deploy")), options.get("hash", ""),
        number("hz", options.get("hz", "15"), least=1.0), chosen("mode", options.get("mode", "real_time"), modes),
        shown(options), place("goal", options["goal"]) if "goal" in options else None,
        tuple(place("objects", one) for one in options.get("objects", "").split(",") if one),
        driver, _dialect(options, driver), context(options["bridge"], options.get("ca")), options.get("sentence", ""),
        auto == "true",
    )  # fmt: skip


def shown(options: Mapping[str, str]) -> View:
    """The view of `robot=PRESET` with `robot.KEY=VALUE`, and the short `arm= space= scale= gripper=`."""
    changed: dict[str, Any] = {_SHORT[key]: _value(word) for key, word in options.items() if key in _SHORT}
    changed |= {key[len("robot.") :]: _value(word) for key, word in options.items() if key.startswith("robot.")}
    return view_of(options.get("robot", "reach"), changed)


def context(url: str, ca: str | None) -> tls.SSLContext | None:
    """How a bridge's certificate is checked: against the file `ca`, or None for the machine's own list."""
    if ca is None:
        return None
    if not url.startswith("wss://"):
        raise InputError(f"ca: got bridge={url}, wanted wss://: without TLS there is no certificate to check.")
    try:
        return tls.create_default_context(cafile=ca)
    except (OSError, tls.SSLError) as error:
        raise InputError(f"ca: got {ca}, wanted a file of certificates in PEM: {error}") from error


def number(key: str, word: str, least: float) -> float:
    """A number of the command line, `least` or more."""
    try:
        found = float(word)
    except ValueError:
        found = float("nan")
    if not found >= least:
        raise InputError(f"{key}: got {word!r}, wanted a number >= {least:g}.")
    return found


def _dialect(options: Mapping[str, str], driver: Driver | None) -> Dialect:
    dialects = {name: name for name in get_args(Dialect)}
    named = chosen("dialect", options.get("dialect", driver.dialect if driver else "ros2"), dialects)
    if driver is not None and named != driver.dialect:
        raise InputError(f"driver={options['driver']}: got dialect={named}, wanted {driver.dialect}, which it speaks.")
    return named


def _value(word: str) -> Any:
    """A value as YAML reads it."""
    import yaml

    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise InputError(f"robot: got {word!r}, wanted a value: {error}") from error
