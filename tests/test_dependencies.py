"""What is imported is declared: by the package itself, or by the extra whose part imports it."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
EXTRA = {
    "robopref/labelling": "label", "hardware": "hardware", "envs/robosuite.py": "robosuite", "benchmarks/labelling": "dev",
    "benchmarks/serve.py": "hardware", "benchmarks/_hardware": "hardware", "robopref/networks/lerobot": "lerobot",
    "robopref/policies/lerobot": "lerobot", "robopref/networks/backbones.py": "vla",
    "robopref/processes.py": "vla",
}  # fmt: skip
"""Parts that need an extra: what their paths begin with."""
BY_HAND = {
    "hardware/": {"rclpy", "sensor_msgs", "std_msgs", "std_srvs", "trajectory_msgs"}, "envs/robosuite.py": {"robosuite"},
}  # fmt: skip
"""ROS 2 comes from no package index, and robosuite with `--no-deps` (pyproject.toml says why)."""
BROUGHT = {"mujoco": "gymnasium", "OpenGL": "gymnasium", "triton": "torch", "accelerate": "peft"}
"""Brought by an extra of a declared package (`gymnasium[mujoco]`), or by what a declared package needs."""


def declared(*lines):
    """Names of the distributions in requirement lines."""
    return {re.match(r"[\w.-]+", line).group().lower() for line in lines}


CORE = declared(*PROJECT["dependencies"])
EXTRAS = {name: declared(*lines) for name, lines in PROJECT["optional-dependencies"].items()}
DISTRIBUTIONS = packages_distributions()


def foreign(path):
    """(line, top-level name) of every import that is neither Python's nor ours, also inside functions and `import_module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
        if called == "import_module" and isinstance(node.args[0], ast.Constant):
            names = [node.args[0].value]
        for name in (one.partition(".")[0] for one in names):
            if name != "robopref" and name not in sys.stdlib_module_names:
                yield node.lineno, name


def owners(name):
    """Lower-case names of the distributions that a module may come from."""
    return {BROUGHT.get(name, one).lower() for one in DISTRIBUTIONS.get(name, [name])}


FILES = [
    path
    for root in ("robopref", "envs", "conf", "hardware", "benchmarks")
    for path in sorted((TOP / root).rglob("*.py"))
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TOP)))
def test_every_import_is_declared(path):
    where = str(path.relative_to(TOP))
    allowed = CORE.union(*(EXTRAS[extra] for part, extra in EXTRA.items() if where.startswith(part)))
    for line, name in foreign(path):
        if any(where.startswith(part) and name in names for part, names in BY_HAND.items()):
            continue
        assert owners(name) & allowed, f"{where}:{line} imports {name}, which pyproject.toml does not declare"


def test_the_promised_extras_are_there():
    assert EXTRAS.keys() >= {
        "label",
        "hardware",
        "vision",
        "vla",
        "robomimic",
        "robosuite",
        "lerobot",
        "ray",
        "slurm",
        "track",
        "dev",
    }
    assert EXTRAS["track"] == {"trackio", "wandb", "tensorboard"}
