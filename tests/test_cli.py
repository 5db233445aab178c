"""The command: its help is quick, its errors are short and say what to do, its exit codes mean what they promise."""

import errno
import subprocess
import sys

import pytest
from command import call, processor_time
from synthetic_run import make_run

from robopref import cli
from robopref.arrays import InputError
from robopref.cli_errors import did_you_mean, explain
from robopref.cli_help import VERBS


def fail_with(monkeypatch, error):
    def raiser(words):
        raise error

    monkeypatch.setitem(cli._HANDLERS, "doctor", raiser)


def test_help_answers_at_once():
    taken, said = processor_time("--help")
    assert all(f"\n  {verb} " in said for verb in VERBS)
    assert taken < 0.7, "promised"


def test_help_imports_nothing_heavy():
    heavy = ("torch", "hydra", "omegaconf", "scipy", "matplotlib", "mujoco", "pyarrow", "rich", "jinja2")
    look = f"print([name for name in {heavy} if name in sys.modules])"
    code = f"import sys\nfrom robopref.cli import main\ntry: main(['--help'])\nfinally: {look}"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip().endswith("[]")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_of_its_own(capsys, verb):
    code, out, _ = call(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"usage: robopref {verb}")
    assert VERBS[verb].summary in out
    assert call(capsys, "help", verb) == (0, out, "")


def test_help_lists_the_presets_on_disk(capsys):
    out = call(capsys, "run", "--help")[1]
    assert "align_metaworld" in out and "quickstart" in out and "policy=" in out


def test_verbs_that_do_not_exist_are_not_offered(capsys):
    for verb in ("fly", "quikstart"):
        code, _, err = call(capsys, verb)
        assert code == 2
        assert len(err.splitlines()) <= 5
    assert "Did you mean quickstart?" in err


def test_nothing_asked_shows_help_and_is_a_wrong_request(capsys):
    code, out, _ = call(capsys)
    assert code == 2 and "usage:" in out


def test_version(capsys):
    import robopref

    assert call(capsys, "--version")[:2] == (0, f"robopref {robopref.__version__}\n")


def test_overrides_go_to_the_pipeline_as_they_are(monkeypatch):
    seen = []
    monkeypatch.setattr("robopref.run.main", lambda *call: seen.append(call))
    for words in (["run", "experiment=x", "seed=1,2", "--multirun"], ["align", "~reward", "-m"], ["quickstart"]):
        with pytest.raises(SystemExit) as left:
            cli.main(words)
        assert left.value.code == 0
    assert seen == [
        ("run", ["experiment=x", "seed=1,2"], True), ("align", ["~reward"], True), ("quickstart", [], False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "drawer-open"], "wanted key=value"),
        (["run", "--seed", "3"], "wanted seed=VALUE"),
        (["run"], "wanted experiment=NAME"),
        (["run", "experiment=align_metawrld"], "Did you mean align_metaworld?"),
        (["run", "experiment=align_metaworld", "sed=3"], "Did you mean seed?"),
        (["collect", "policy=difusion"], "Did you mean diffusion"),
        (["collect", "align.lrr=3"], "Did you mean lr?"),
        (["collect", "nothing_like_it=3"], "unknown key 'nothing_like_it'"),
        (["collect", "task=[a"], "robopref"),
        (["compare"], "at least one"),
        (["compare", "nowhere"], "nowhere"),
        (["compare", "nowhere", "oot=x"], "Did you mean out?"),
        (["report", "nowhere"], "metrics.json"),
        (["report", "a", "b"], "wanted one run folder"),
        (["convert", "a"], "wanted SRC DST --to FORMAT"),
        (["validate"], "wanted one"),
        (["validate", "nowhere"], "does not exist"),
        (["doctor", "--jsn"], "wanted nothing or --json"),
        (["bench", "steppping"], "unknown benchmark"),
        (["bench", "x", "quick=perhaps"], "quick=true or quick=false"),
        (["bench", "gate", "resume=true"], "wanted a benchmark in parts"),
        (["bench", "hardware", "resume=true"], "out=DIR"),
    ],
)
def test_a_wrong_request_ends_with_two_and_at_most_five_lines(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *words)
    assert code == 2, err
    assert said in err
    assert len(err.splitlines()) <= 5
    assert "Traceback" not in err and not out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("got x\nwanted y\ndo z"), 2, "wanted y"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 2, "disk full while writing a/b"),
        (RuntimeError("write failed: No space left on device"), 2, "disk full"),
        (FileNotFoundError(2, "No such file or directory", "gone"), 2, "gone"),
        (ModuleNotFoundError("No module named 'timm'", name="timm"), 2, "'timm' is missing"),
        (ModuleNotFoundError("No module named 'robopref.x'", name="robopref.x"), 1, "use --debug"),
        (ValueError("inner"), 1, "ValueError: inner"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_every_failure_has_its_exit_code(capsys, monkeypatch, error, code, said):
    fail_with(monkeypatch, error)
    got, _, err = call(capsys, "doctor")
    assert got == code
    assert said in err and "Traceback" not in err


def test_debug_shows_the_traceback(capsys, monkeypatch):
    fail_with(monkeypatch, InputError("got x"))
    code, _, err = call(capsys, "doctor", "--debug")
    assert code == 2 and "Traceback" in err and "robopref: got x" in err


def test_an_input_error_inside_another_error_is_still_the_users():
    outer = RuntimeError("Error in call to target")
    outer.__cause__ = InputError("got 3 cameras, wanted 2")
    assert explain(outer) == (2, ["got 3 cameras, wanted 2"])


def test_an_input_error_of_a_worker_process_arrives_as_text_and_is_still_the_users():
    import hydra.errors

    class _RemoteTraceback(Exception):
        pass

    said = InputError("MetaWorld: unknown task 'drawr-open'.\nDid you mean drawer-open?")
    error = hydra.errors.InstantiationException(
        f"Error in call to target 'robopref.envs.metaworld.MetaWorld':\n{said!r}"
    )
    error.__cause__ = _RemoteTraceback("Traceback (most recent call last): ...")
    assert explain(error) == (2, ["MetaWorld: unknown task 'drawr-open'.", "Did you mean drawer-open?"])
    plain = RuntimeError("cannot")
    plain.__cause__ = _RemoteTraceback("Traceback ...")
    assert explain(plain) == (1, ["RuntimeError: cannot", "use --debug to see where this happened"])


def test_long_errors_are_cut_to_five_lines_and_keep_the_advice():
    code, lines = explain(ValueError("\n".join(map(str, range(50)))))
    assert code == 1 and len(lines) == 5 and "--debug" in lines[-1]


def test_near_names_are_offered_and_far_ones_are_not():
    assert did_you_mean("diffusoin", ["diffusion", "flow"]) == " Did you mean diffusion?"
    assert did_you_mean("x", ["diffusion"]) == ""


def test_a_closed_pipe_is_no_error():
    piped = f"'{sys.executable}' -m robopref.cli run --help | head -1"
    asked = subprocess.run(["sh", "-c", piped], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("usage") and asked.stderr == ""


def test_report_and_compare_work_from_the_command(capsys, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", episodes=20)
    code, out, _ = call(capsys, "report", str(run))
    assert (code, out.strip()) == (0, str(run / "report.html"))
    assert call(capsys, "report", f"out={run}")[0] == 0
    code, out, _ = call(capsys, "compare", str(run), f"out={tmp_path / 'compared'}")
    assert code == 0 and "aligned − base" in out


def test_convert_takes_its_format_either_way(capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("robopref.data.convert.convert", lambda *words: seen.append(words) or "done")
    assert call(capsys, "convert", "a", "b", "--to", "robomimic")[:2] == (0, "done\n")
    assert call(capsys, "convert", "--to", "robomimic", "a", "b")[0] == 0
    assert call(capsys, "convert", "a", "b", "to=robomimic")[0] == 0
    assert len({tuple(map(str, words)) for words in seen}) == 1


def test_validate_ends_with_two_when_something_is_wrong(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("robopref.data.validate.validate", lambda root: ["a is wrong, do b"])
    assert call(capsys, "validate", str(tmp_path))[:2] == (2, "a is wrong, do b\n")
    monkeypatch.setattr("robopref.data.validate.validate", lambda root: [])
    assert call(capsys, "validate", str(tmp_path))[0] == 0


def test_progress_is_silent_off_a_terminal_and_a_bar_on_one(capsys, monkeypatch):
    from robopref.progress import track

    assert list(track(range(3), "work")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert [list(track(iter("ab"), "inner", 2)) for _ in track(range(2), "outer")] == [["a", "b"], ["a", "b"]]
    out, err = capsys.readouterr()
    assert out == "" and "outer" in err and "2/2" in err


def test_every_experiment_on_disk_can_be_composed():
    from robopref.run import compose, experiments

    for name in experiments():
        assert compose([f"experiment={name}", "dataset=somewhere"])["experiment"] == name
