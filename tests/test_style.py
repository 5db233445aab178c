"""What must never be in this repository: pickles, evaluated strings, addresses of package servers, paths of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
FOLDERS = ("robopref", "envs", "hardware", "conf", "benchmarks", "tests")
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READER = "robopref/data/restricted.py"
"""The one file that may read foreign pickles, restricted to arrays."""


def tracked():
    """Files of the repository, also new ones, as git lists them; without git, all of the known folders."""
    listing = ["git", "-C", str(TOP), "ls-files", "--cached", "--others", "--exclude-standard"]
    asked = subprocess.run(listing, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return [TOP / line for line in asked.stdout.splitlines() if (TOP / line).is_file()]
    return [path for folder in FOLDERS for path in (TOP / folder).rglob("*") if path.is_file()]


FILES = tracked()
CODE = [path for path in FILES if path.suffix == ".py"]


def calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(TOP)))
def test_no_file_pickles_or_evaluates_text(path):
    where = path.relative_to(TOP)
    for node, name, words in calls(path):
        line = f"{where}:{node.lineno}"
        assert name not in ("eval", "exec", "compile", "builtins.eval", "builtins.exec"), f"{line}: {name}"
        assert words.get("allow_pickle") != "True", f"{line}: allow_pickle"
        assert name not in ("torch.load", "torch.save", "np.fromfile"), f"{line}: {name}; models are safetensors"
        assert words.get("shell") != "True", f"{line}: shell=True"
    if str(where) != READER:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not PICKLERS & {name.partition(".")[0] for name in names}, f"{where}:{node.lineno}"


def test_no_yaml_constructs_objects_or_evaluates():
    for path in (TOP / "conf").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "!!python" not in text and "${eval" not in text, path.name


# Put together here, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": re.compile("|".join(["/" + name + "/" for name in ("work", "root")] + [r"/home" + r"/\w+/", "/Us" + r"ers/\w+/", "/tmp" + "/v/"])),
    "a package server": re.compile("--" + "(extra-)?index-url|--" + r"find-links|--" + r"trusted-host|pypi\.(org|python)|files\.python" + r"hosted|download\.py" + "torch"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_text_names(what):
    for path in FILES:
        if path.suffix in (".npz", ".png", ".mp4", ".jpg"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = FORBIDDEN[what].search(line)
            assert not found, f"{path.relative_to(TOP)}:{number} names {what}: {found.group() if found else ''}"


def test_installation_files_name_no_address():
    for name in (
        "Makefile",
        ".ci/run",
        "constraints.txt",
        "constraints-lerobot.txt",
        "constraints-trl.txt",
        "pyproject.toml",
        ".pre-commit-config.yaml",
    ):
        path = TOP / name
        if path.exists():
            assert not re.search(r"\w://|\bgit\+|@ file", path.read_text(encoding="utf-8")), name


def test_constraints_pin_versions_and_nothing_else():
    for line in (TOP / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"(#.*|[\w.-]+==[\w.+!-]+)?", line), line


@pytest.mark.parametrize(
    "path",
    [path for path in CODE if "tests" not in path.parts and path.stat().st_size],
    ids=lambda p: str(p.relative_to(TOP)),
)
def test_the_first_line_says_what_a_file_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and path.read_text(encoding="utf-8").startswith('"""'), (
        f"{path.relative_to(TOP)} has no docstring first"
    )
