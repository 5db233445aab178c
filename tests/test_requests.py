"""What a request may ask for: sweeps are checked whole before they begin, numbers and resets before anything runs."""

import os
import re

import pytest

from robopref import cli
from robopref.arrays import InputError
from robopref.run import combinations, compose
from robopref.stages import single


@pytest.fixture
def command(monkeypatch, tmp_path, capfd):
    """Run the command with words in an empty folder: (exit code, lines on stderr, jobs that ran)."""
    ran = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("robopref.run._job", lambda verb, config, overrides: ran.append(config))

    def call(*words):
        with pytest.raises(SystemExit) as left:
            cli.main(list(words))
        return left.value.code, capfd.readouterr().err.strip().splitlines(), ran

    return call


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tsk=a,b"], "Did you mean task?"),
        (["seed=99,100"], "0 to 99"),
        (["seed=100,101"], "0 to 99"),
        (["policy=diffusion,difusion"], "Did you mean diffusion"),
        (["seed=1,2", "task=[a"], "robopref"),
    ],
)
def test_a_wrong_sweep_is_refused_before_its_first_job(command, words, said):
    code, lines, ran = command("collect", *words, "--multirun")
    assert code == 2 and len(lines) <= 5 and said in "\n".join(lines)
    assert not ran and not any(os.scandir("."))


def test_a_right_sweep_runs_every_combination(command):
    code, _, ran = command("collect", "seed=1,2", "policy=diffusion,flow", "source=[a,b]", "out=four", "-m")
    assert code == 0
    assert [(one["seed"], one["source"]) for one in ran] == [(s, ["a", "b"]) for s in (1, 1, 2, 2)]
    assert len({one["out"] for one in ran}) == 4


def test_an_error_inside_a_job_reaches_the_command(command, monkeypatch):
    def job(verb, config, overrides):
        raise FileNotFoundError(2, "No such file or directory", "nowhere")

    monkeypatch.setattr("robopref.run._job", job)
    code, lines, _ = command("collect", "seed=1,2", "out=two", "-m")
    assert code == 2 and len(lines) <= 5 and "nowhere" in "\n".join(lines)
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_combinations_are_split_as_hydra_splits_them():
    assert combinations(["seed=range(1,3)", "task=a,b", "source=[x,y]"]) == [
        [f"seed={seed}", f"task={task}", "source=[x,y]"] for seed in (1, 2) for task in "ab"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        "episodes=0", "episodes=-1", "pairs=0", "pairs=true", "pairs=null", "workers=1.5", "seed=-1", "seed=100", "base.demonstrations=0",
        "base.episodes=-3", "base.clone.steps=0", "base.clone.lr=0", "base.clone.ema=1.1", "rounds.count=10", "rounds.resets=1",
        "rounds.replicas=1", "rounds.top=0", "rounds.held_out=-0.1", "align.steps=0", "align.lr=nan", "align.kappa=0",
        "align.anchor=-1", "align.proximal=-0.1", "guard.every=0", "gate.episodes=0", "gate.tolerance=inf", "evaluation.episodes=0",
        "evaluation.videos=-1", "align.steps=many",
    ],
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_by_name(wrong):
    key = wrong.partition("=")[0]
    with pytest.raises(InputError, match=f"^{re.escape(key)}: got .*, wanted a "):
        compose([wrong])


@pytest.mark.parametrize(
    ("overrides", "sets"),
    [
        (["base.first_reset=1500000"], "rounds .* and base"),
        (["gate.first_reset=2000079"], "base .* and gate"),
        (["evaluation.first_reset=2950000"], "gate .* and evaluation"),
        (["rounds.first_reset=990000"], "demonstrations .* and rounds"),
        (["base.episodes=1000001"], "base .* and gate"),
    ],
)
def test_sets_of_resets_that_would_meet_at_some_seed_are_refused(overrides, sets):
    with pytest.raises(InputError, match=sets):
        compose(overrides)
    assert compose(["gate.first_reset=2000080"])


@pytest.mark.parametrize("verb", ["collect", "reward", "pretrain", "align"])
def test_an_occupied_folder_is_refused_before_any_work(verb, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    for work in ("scripted", "reward_of_store", "read_rounds", "_store"):
        monkeypatch.setattr(single, work, lambda *_: pytest.fail("it began to work"))
    config = compose(["checkpoint=x"] if verb == "align" else []) | {"given": []}
    with pytest.raises(InputError, match="exists already"):
        getattr(single, verb)(config, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
