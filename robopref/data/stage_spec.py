"""Stage specifications: YAML (or JSON) that says into which stages a task falls and what costs what, checked to the line.

The format is `stage_spec.schema.json`, which can be handed to a vision-language model; beyond it, every name must be one that the file
itself gives. GRAPE (Zhang et al. 2024) has such stages and costs written by a language model.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from robopref.arrays import InputError

MEASURES = ("distance", "moved", "speed", "value")
"""distance: between two points. moved: from where it was at the start. speed: per step. value: one number, `gripper` or `hand.z`."""
AXES = {"x": 0, "y": 1, "z": 2}
Place = tuple[str | int, ...]
"""Where in a file: the keys and indices that lead there."""


@dataclass(frozen=True)
class StageSpec:
    """A checked specification; `stages` are plain mappings in the schema's form."""

    task: str
    quantities: dict[str, Any]
    keypoints: dict[str, dict[str, Any]]
    stages: tuple[dict[str, Any], ...]


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of stage specifications."""
    found: dict[str, Any] = json.loads(files("robopref.data").joinpath("stage_spec.schema.json").read_text("utf-8"))
    return found


def ready() -> list[str]:
    """Task names for which the package has a specification."""
    folder = files("robopref.conf").joinpath("stage_spec")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


@cache
def ready_spec(task: str) -> StageSpec:
    """The package's specification of a task, with or without its `-v3`. Raises `InputError` where there is none."""
    name = task.removesuffix("-v3")
    if name not in ready():
        near = difflib.get_close_matches(name, ready(), n=1)
        raise InputError(
            f"stages: got no specification for task {task!r}{f', did you mean {near[0]!r}?' if near else '.'} Ready: {', '.join(ready())}.\n"
            "Write one (conf/stage_spec/drawer-open.yaml is an example) and say labeler.spec=FILE."
        )
    text = files("robopref.conf").joinpath("stage_spec", f"{name}.yaml").read_text("utf-8")
    return parse(text, f"conf/stage_spec/{name}.yaml")


def read(path: Path | str) -> StageSpec:
    """The specification in a file. Raises `InputError` that names every wrong line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}), wanted a YAML file of stages.") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> StageSpec:
    """The specification in a text; `name` stands before the line number in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(
            f"{name}{line}: no YAML ({getattr(error, 'problem', error)}). Check indentation and brackets."
        ) from error
    if not isinstance(data, dict):
        raise InputError(f"{name}:1: got {type(data).__name__}, wanted the keys task, quantities and stages.")
    found = [*_repeated(root, ()), *_misshapen(data)] or [*_unknown_names(data)]
    if found:
        lines = sorted({(_line(root, place), message) for place, message in found})
        shown = "\n".join(f"{name}:{line}: {message}" for line, message in lines[:4])
        raise InputError(shown + (f"\n... and {len(lines) - 4} more" if len(lines) > 4 else ""))
    return StageSpec(data["task"], data["quantities"], data.get("keypoints") or {}, tuple(data["stages"]))


def _misshapen(data: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """What the schema objects to."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema()).iter_errors(data):
        if error.validator == "additionalProperties":
            known = list(error.schema.get("properties", {}))
            for key in sorted(error.instance.keys() - set(known), key=str):  # YAML reads `on` as a truth value
                yield (
                    (*error.absolute_path, key),
                    f"got the key {key!r}, wanted one of {', '.join(known)}.{_near(key, known)}",
                )
        elif error.validator == "anyOf":
            yield (
                tuple(error.absolute_path),
                f"got {error.instance!r}, wanted columns [first, past the last] or extra with columns.",
            )
        else:
            yield tuple(error.absolute_path), f"{error.message[:160]} ({error.validator})."


def _unknown_names(data: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    """Names that nothing gives, conditions and costs without exactly one measure, columns the wrong way round."""
    widths = {}
    for name, given in data["quantities"].items():
        start, end = given["columns"] if isinstance(given, dict) else given
        widths[name] = end - start
        if end <= start:
            yield ("quantities", name), f"got columns [{start}, {end}), wanted the second number above the first."
    for name, given in (data.get("keypoints") or {}).items():
        at: Place = ("keypoints", name)
        if name in widths:
            yield at, f"got {name!r} twice, wanted a name that is no quantity."
        if given["of"] not in data["quantities"]:
            yield (
                (*at, "of"),
                f"got the unknown quantity {given['of']!r}.{_near(given['of'], list(data['quantities']))}",
            )
            continue
        if "offset" in given and len(given["offset"]) != widths[given["of"]]:
            yield (
                (*at, "offset"),
                f"got {len(given['offset'])} numbers, wanted {widths[given['of']]} as in {given['of']}.",
            )
    widths |= {name: widths.get(given["of"], 0) for name, given in (data.get("keypoints") or {}).items()}
    names = [stage["name"] for stage in data["stages"]]
    for number, stage in enumerate(data["stages"]):
        if names.index(stage["name"]) != number:
            yield ("stages", number, "name"), f"got the stage {stage['name']!r} twice, wanted different names."
        yield from _condition(stage["until"], ("stages", number, "until"), widths)
        for place, cost in enumerate(stage["costs"]):
            at = ("stages", number, "costs", place)
            if ("where" in cost) == any(measure in cost for measure in MEASURES):
                yield (
                    at,
                    f"got both or neither of `where` and a measure, wanted `where` or one of {', '.join(MEASURES)}.",
                )
            elif "where" in cost:
                yield from _condition(cost["where"], (*at, "where"), widths)
            else:
                yield from _measure(cost, at, widths)


def _condition(given: dict[str, Any], at: Place, widths: dict[str, int]) -> Iterator[tuple[Place, str]]:
    joints = [key for key in ("all", "any", "not") if key in given]
    if joints:
        if len(given) > 1:
            yield at, f"got {', '.join(given)} together, wanted {joints[0]} alone."
        for key in joints:
            parts = [given[key]] if key == "not" else given[key]
            for number, part in enumerate(parts):
                yield from _condition(part, (*at, key) if key == "not" else (*at, key, number), widths)
        return
    if "below" not in given and "above" not in given:
        yield at, "got a condition without below or above, wanted at least one."
    yield from _measure(given, at, widths)


def _measure(given: dict[str, Any], at: Place, widths: dict[str, int]) -> Iterator[tuple[Place, str]]:
    named = [measure for measure in MEASURES if measure in given]
    if len(named) != 1:
        yield at, f"got {len(named)} measures, wanted exactly one of {', '.join(MEASURES)}."
        return
    measure = named[0]
    asked = given[measure] if measure == "distance" else [given[measure]]
    for number, full in enumerate(asked):
        place = (*at, measure, number) if measure == "distance" else (*at, measure)
        name, _, axis = full.partition(".") if measure == "value" else (full, "", "")
        if name not in widths:
            yield place, f"got the unknown quantity {name!r}.{_near(name, list(widths))}"
        elif measure == "value" and (
            AXES.get(axis, 0) >= widths[name] or (axis or "x") not in AXES or (not axis and widths[name] > 1)
        ):
            yield place, f"got {full!r}, wanted one number: {name} has {widths[name]} columns, say {name}.x, .y or .z."
        elif any(AXES[a] >= widths[name] for a in given.get("axes", "")):
            yield (*at, "axes"), f"got axes {given['axes']!r}, wanted axes of {name}, which has {widths[name]} columns."
    if measure == "distance" and all(n in widths for n in asked) and widths[asked[0]] != widths[asked[1]]:
        yield (
            (*at, measure),
            f"got {asked[0]} with {widths[asked[0]]} and {asked[1]} with {widths[asked[1]]} columns, wanted as many.",
        )


def _repeated(node: yaml.Node | None, at: Place) -> Iterator[tuple[Place, str]]:
    """Keys that stand twice in a mapping; YAML itself would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield (*at, key.value), f"got the key {key.value!r} twice, wanted it once."
            seen.add(key.value)
            yield from _repeated(value, (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _repeated(value, (*at, number))


def _line(node: yaml.Node | None, place: Place) -> int:
    """1-based line of a place: of its key, or of the innermost thing around it that is there."""
    line = node.start_mark.line + 1 if node else 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == str(step)]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."
