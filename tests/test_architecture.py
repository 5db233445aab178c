"""The one structural rule: a module imports lower floors only, plug-ins never import a sibling, edges are imported by nobody."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import robopref

TOP = Path(__file__).parents[1]

FLOOR = {
    "arrays": 0.0, "progress": 0.0, "pictures": 0.05, "types": 0.1, "protocols": 0.2,
    "losses": 1, "transport": 1, "networks": 1, "statistics": 1, "agreement": 1, "device": 1, "processes": 1,
    "data": 2,
    "labelers": 3, "rewards": 3, "policies": 3,
    "episodes": 3.9, "train": 4, "rollout": 4, "checkpoint": 4,
    "learners": 5,
    "stages": 6, "labelling": 6.2,
    "compare": 6.5,
    "cli_help": 7, "cli_errors": 6.1, "run": 7, "doctor": 7, "ranges": 6.9, "bench": 7.1, "plan_memory": 7.1, "cli": 7.2,
}  # fmt: skip
"""A part of the package -> its floor. A new part needs a line here, or enters by `_target_`."""

FREE_INSIDE = {"data", "transport", "networks", "losses", "learners", "stages", "labelling"}
"""Folders whose files build on each other; in the others, plug-ins stand alone (cycles are refused everywhere)."""

EDGES = {"envs", "hardware"}
"""Entered by `_target_` only; what they may import:"""
EDGE_MAY = {
    "envs": {"arrays", "types", "protocols", "progress"},
    "hardware": {part for part, floor in FLOOR.items() if floor <= 4},
}
ROBOT_SIDE = {
    "guard",
    "limits",
    "limiter",
    "reasons",
    "command",
    "kinematics",
    "nearness",
    "workspace",
    "frames",
    "journal",
    "topics",
    "rosbridge",
    "goals",
    "franka",
    "backend",
    "link",
    "ros_node",
    "settings",
    "controls",
    "hand",
    "latch",
    "arming",
    "workspace_file",
}


def modules():
    """Dotted name below robopref -> file, for the package and its edges."""
    found = {}
    for root, prefix in ((TOP / "robopref", ""), (TOP / "envs", "envs"), (TOP / "hardware", "hardware")):
        for path in sorted(root.rglob("*.py")):
            parts = [*([prefix] if prefix else []), *path.relative_to(root).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name):
    """(line, dotted name below robopref) of every import in a file, also inside functions."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("robopref"):
                    yield node.lineno, alias.name.removeprefix("robopref").lstrip(".")
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parts = package.split(".") if package else []
                module = ".".join(["robopref", *parts[: len(parts) - node.level + 1], *([module] if module else [])])
            if module == "robopref" or module.startswith("robopref."):
                base = module.removeprefix("robopref").lstrip(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}".lstrip(".")
                    yield node.lineno, full if full in MODULES else base


def part(name):
    return name.partition(".")[0]


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) not in EDGES and name])
def test_a_module_imports_lower_floors_only(name):
    own = part(name)
    assert own in FLOOR, f"robopref/{own} has no floor: give it one, or enter it by _target_"
    for line, target in imports(name):
        there = part(target)
        where = f"{MODULES[name].relative_to(TOP)}:{line} imports robopref.{target}"
        if not there:
            continue  # `from robopref import __version__`
        assert there not in EDGES | {"conf", "benchmarks"}, f"{where}: enter it by _target_"
        assert there in FLOOR, f"{where}: give {there} a floor"
        if there == own and "." in name:
            assert own in FREE_INSIDE or target in (name, own), f"{where}: a plug-in never imports its sibling"
        else:
            assert FLOOR[there] < FLOOR[own], f"{where}: floor {FLOOR[there]} is not below {FLOOR[own]}"


@pytest.mark.parametrize("name", [name for name in MODULES if part(name) in EDGES])
def test_an_edge_imports_only_what_it_may(name):
    own, file = part(name), name.rpartition(".")[2]
    allowed = {"arrays"} if own == "hardware" and file in ROBOT_SIDE else EDGE_MAY[own]
    for line, target in imports(name):
        assert part(target) in allowed | {own}, f"{MODULES[name].relative_to(TOP)}:{line} imports robopref.{target}"


def test_no_module_imports_itself_by_a_detour():
    graph = {name: {target for _, target in imports(name) if target != name} for name in MODULES}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"cycle: {' -> '.join([*path, name])}"
        if name in done or name not in graph:
            return
        path.append(name)
        for target in graph[name]:
            visit(target)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_the_rule_would_notice_a_breach(tmp_path, monkeypatch):
    (tmp_path / "bad.py").write_text(
        "def f():\n    from robopref.stages import report\n    import robopref.envs.metaworld\n"
    )
    monkeypatch.setitem(MODULES, "losses.bad", tmp_path / "bad.py")
    assert [target for _, target in imports("losses.bad")] == ["stages.report", "envs.metaworld"]
    monkeypatch.setattr(sys.modules[__name__], "TOP", tmp_path)
    with pytest.raises(AssertionError, match=r"floor 6 is not below 1"):
        test_a_module_imports_lower_floors_only("losses.bad")


def test_public_names_exist():
    for name in robopref.__all__:
        assert getattr(robopref, name).__name__ == name
    with pytest.raises(AttributeError, match="robopref has no 'Trajektory'"):
        _ = robopref.Trajektory


@pytest.mark.parametrize(
    "statement",
    [
        "import robopref",
        "import robopref.arrays",
        "import robopref.statistics",
        "import robopref.cli, robopref.progress",
    ]
    + [f"import robopref.hardware.{name}" for name in sorted(ROBOT_SIDE) if (TOP / f"hardware/{name}.py").exists()],
)
def test_light_modules_load_nothing_heavy(statement):
    heavy = (
        "torch",
        "scipy",
        "matplotlib",
        "pyarrow",
        "mujoco",
        "metaworld",
        "diffusers",
        "hydra",
        "omegaconf",
        "rich",
    )
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "[]"


def test_every_folder_with_code_is_in_the_wheel():
    import tomllib

    listed = set(tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    homes = {
        "robopref": TOP / "robopref",
        **{f"robopref.{name}": TOP / name for name in ("envs", "conf", "hardware", "benchmarks")},
    }
    for package, root in homes.items():
        for init in root.rglob("__init__.py"):
            dotted = ".".join([package, *init.parent.relative_to(root).parts])
            assert dotted in listed, f"pyproject.toml does not list {dotted}"
    assert all(import_module(name) for name in listed)
