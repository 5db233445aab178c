"""Every kind of bad input, asked of the command: exit code 2, at most five lines that say what to do, and nothing damaged."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from robopref.envs.metaworld_tasks import TASKS

from robopref import cli
from robopref.run import main

ENV = ["env=point_mass", "task=point-mass", "workers=1"]
TINY = ["policy.width=16", "policy.depth=1", "base.clone.steps=2"]
DATA, PAIRS, INFO = (
    "data/data/chunk-000/file-000.parquet",
    "data/meta/preferences/pairs-000.parquet",
    "data/meta/preferences/info.json",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a labelled store (data) and a policy that was cloned from it (bc/policy)."""
    here = tmp_path_factory.mktemp("made")
    main("collect", [*ENV, "episodes=6", f"out={here / 'data'}"])
    main("label", [*ENV, "pairs=4", f"dataset={here / 'data'}"])
    main("pretrain", [*ENV, *TINY, f"dataset={here / 'data'}", f"out={here / 'bc'}"])
    return here


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """A copy of it, which is also the current folder."""
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def contents(folder):
    """Path -> hash of every file below a folder."""
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(place, capfd, *words):
    """What the command says on stderr when it refuses; everything that was there must stay as it was, and nothing may be added."""
    before = contents(place)
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    err = capfd.readouterr().err
    assert left.value.code == 2, err
    assert 1 <= len(err.splitlines()) <= 5 and "Traceback" not in err
    assert contents(place) == before
    return err


def edit_column(path, name, first):
    """Put `first` into the first row of a column."""
    table = pq.read_table(path)
    field, values = table.schema.field(name), table[name].to_pylist()
    at = table.schema.get_field_index(name)
    pq.write_table(table.set_column(at, field, pa.array([first, *values[1:]], field.type)), path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["collect", "task=drawr-open"], "drawer-open"),
        (["run", "experiment=align_metaworld", "task=bin-piking"], "bin-picking"),
        (["collect", "taks=reach"], "Did you mean task"),
        (["colect"], "Did you mean collect"),
    ],
)
def test_an_unknown_task_key_or_verb_names_near_ones(place, capfd, words, said):
    assert said in refused(place, capfd, *words, *(["workers=1", "out=new"] if len(words) > 1 else []))


def test_both_spellings_of_every_task_are_known():
    from robopref.envs.metaworld_tasks import canonical

    assert len(TASKS) == 50
    for task in TASKS:
        assert canonical(task) == canonical(task.removesuffix("-v3")) == f"{task.removesuffix('-v3')}-v3"


@pytest.mark.parametrize("words", [["label", "dataset=data"], ["pretrain", "dataset=data", "out=new"]])
def test_a_dataset_with_a_missing_column(place, capfd, words):
    pq.write_table(pq.read_table(place / DATA).drop_columns(["next.success"]), place / DATA)
    assert "next.success" in refused(place, capfd, *words, *ENV)


@pytest.mark.parametrize("words", [["label", "dataset=data"], ["pretrain", "dataset=data", "out=new"]])
def test_a_torn_parquet_file(place, capfd, words):
    os.truncate(place / DATA, 3000)
    err = refused(place, capfd, *words, *ENV)
    assert "torn" in err and DATA in err


@pytest.mark.parametrize("verb", ["label", "reward", "align"])
def test_a_sidecar_of_another_store(place, capfd, verb):
    info = json.loads((place / INFO).read_text())
    (place / INFO).write_text(json.dumps(info | {"store_fingerprint": "0" * 64}))
    words = [verb, "dataset=data", "checkpoint=bc/policy", *(["pairs=2"] if verb == "label" else ["out=new"])]
    assert "fingerprint" in refused(place, capfd, *words, *ENV)


@pytest.mark.parametrize("verb", ["reward", "align"])
def test_a_label_outside_zero_to_one(place, capfd, verb):
    edit_column(place / PAIRS, "prob_first", 1.5)
    assert "1.5" in refused(place, capfd, verb, "dataset=data", "checkpoint=bc/policy", "out=new", *ENV)


@pytest.mark.parametrize("verb", ["reward", "align"])
@pytest.mark.parametrize("column", ["prob_first", "second_end"])
def test_a_sidecar_with_a_missing_column(place, capfd, verb, column):
    pq.write_table(pq.read_table(place / PAIRS).drop_columns([column]), place / PAIRS)
    err = refused(place, capfd, verb, "dataset=data", "checkpoint=bc/policy", "out=new", *ENV)
    assert column in err and "pairs-000.parquet" in err


@pytest.mark.parametrize("verb", ["reward", "align"])
@pytest.mark.parametrize("length", [0, 1000], ids=["empty", "torn"])
def test_a_torn_sidecar(place, capfd, verb, length):
    assert (place / PAIRS).stat().st_size > length
    os.truncate(place / PAIRS, length)
    err = refused(place, capfd, verb, "dataset=data", "checkpoint=bc/policy", "out=new", *ENV)
    assert "torn" in err and "pairs-000.parquet" in err


@pytest.mark.parametrize("verb", ["reward", "align"])
def test_a_pair_outside_its_episode(place, capfd, verb):
    edit_column(place / PAIRS, "second_end", 9999)
    assert "9999" in refused(place, capfd, verb, "dataset=data", "checkpoint=bc/policy", "out=new", *ENV)


@pytest.mark.parametrize(
    "words", [["evaluate", "episodes=2"], ["collect", "episodes=2"], ["run", "experiment=quickstart"]]
)
def test_a_policy_for_other_dimensions(place, capfd, words):
    words = [*words, "checkpoint=bc/policy", "env=arm_reach", "task=arm-reach", "workers=1", "out=new"]
    assert "wanted (13,)" in refused(place, capfd, *words)


def child(place, code, *words, **environment):
    """Exit code and stderr lines of the command in a process of its own, after `code`."""
    script = f"import sys\n{code}\nfrom robopref.cli import main\nmain(sys.argv[1:])"
    asked = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=place, env=os.environ | environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    return asked.returncode, asked.stderr.strip().splitlines()


QUOTA = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"


@pytest.mark.parametrize(
    "words",
    [
        ["collect", "episodes=8", "out=new"],
        pytest.param(["pretrain", "dataset=data", "out=new", *TINY], marks=pytest.mark.slow),
        ["label", "dataset=data", "pairs=10", "seed=5"],
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk(place, words):
    before = contents(place)
    code, lines = child(place, QUOTA, *words, *ENV)
    assert code == 2, lines
    assert len(lines) <= 5 and "disk full" in lines[0] and "free" in lines[0].lower()
    assert contents(place) == before and not Path("new").exists()


@pytest.mark.slow
def test_no_gl(place):
    before = contents(place)
    words = ["collect", "task=reach", "+env.cameras=[corner2]", "episodes=1", "workers=1", "out=new"]
    code, lines = child(place, "", *words, MUJOCO_GL="disable")
    assert code == 2, lines
    assert len(lines) <= 5 and "MUJOCO_GL" in " ".join(lines)
    assert contents(place) == before


FILM = """
import json
from pathlib import Path
from robopref.checkpoint import save
from robopref.policies.diffusion import Diffusion
from robopref.run import compose
from robopref.stages.videos import film
from robopref.types import Dims
save(Diffusion(Dims(39, 4), width=8, depth=1), Path("policy"))
config = compose(["task=reach", "env.horizon=5", "evaluation.videos=1"])
print(json.dumps(film(config, {"base": "policy"}, Path("films"))))
"""


@pytest.mark.slow
def test_a_report_does_without_films_where_there_is_no_gl(tmp_path):
    asked = subprocess.run(
        [sys.executable, "-c", FILM], cwd=tmp_path, env=os.environ | {"MUJOCO_GL": "disable"}, capture_output=True, text=True, check=True
    )  # fmt: skip
    found = json.loads(asked.stdout)
    assert found["films"] == 0 and "MUJOCO_GL" in found["why"]
