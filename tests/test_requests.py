"""What a request may ask for: sweeps are checked whole before they begin, numbers and resets before anything runs."""

import os

import pytest

from robopref import cli
from robopref.run import combinations


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
