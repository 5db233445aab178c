"""The command: its help is quick, its errors are short and say what to do, its exit codes mean what they promise."""

import errno
import json
import subprocess
import sys
import time

import pytest
from synthetic_run import make_run

from robopref import bench, cli
from robopref.arrays import InputError
from robopref.cli_errors import did_you_mean, explain
from robopref.cli_help import VERBS

COMMAND = [sys.executable, "-m", "robopref.cli"]


def call(capsys, *words):
    """(exit code, output, error output) of the command, in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    out, err = capsys.readouterr()
    return left.value.code, out, err


def fail_with(monkeypatch, error):
    def raiser(words):
        raise error

    monkeypatch.setitem(cli._HANDLERS, "doctor", raiser)


def test_help_answers_at_once():
    times = []
    for _ in range(3):
        begin = time.monotonic()
        asked = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
        times.append(time.monotonic() - begin)
    assert all(f"\n  {verb} " in asked.stdout for verb in VERBS)
    print(f"robopref --help: {min(times):.2f} s")
    assert min(times) < 2.0


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


def test_bench_shows_its_rows_and_keeps_them(capsys, monkeypatch, tmp_path):
    rows = {"steps": {"measured": 2.5, "target": 2.0, "ok": True, "ours": 50.0, "peer": 20.0}}

    class Fake:
        @staticmethod
        def run(quick):
            assert quick is True
            return rows

    monkeypatch.setattr(bench, "available", lambda: ["fake"])
    monkeypatch.setattr(bench, "import_module", lambda name: Fake)
    code, out, _ = call(capsys, "bench", "fake", "quick=true", f"out={tmp_path / 'new'}")
    assert code == 0 and "steps" in out and "2.5" in out
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == rows
    rows["steps"]["ok"] = False
    assert call(capsys, "bench", "fake", "quick=true")[0] == 1


def test_a_benchmark_in_parts_keeps_each_and_goes_on_where_it_stopped(monkeypatch, tmp_path):
    done, broken = [], [True]

    def part(name):
        def measure(quick):
            if name == "second" and broken:
                raise InputError("no peer")
            if name == "third" and broken:
                raise KeyboardInterrupt
            done.append(name)
            return {f"{name}_row": {"measured": 1.0, "target": 1.0, "ok": True}}

        return measure

    class Fake:
        PARTS = {name: part(name) for name in ("first", "second", "third")}  # noqa: RUF012

    monkeypatch.setattr(bench, "available", lambda: ["fake"])
    monkeypatch.setattr(bench, "import_module", lambda name: Fake)
    with pytest.raises(KeyboardInterrupt):
        bench.bench("fake", True, tmp_path)
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert kept["first_row"]["ok"] and not kept["second"]["ok"], "a part that failed takes its own rows away only"
    broken.clear()
    assert bench.bench("fake", True, tmp_path, resume=True) == 0
    assert done == ["first", "second", "third"], "only what had not been finished was measured"
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert set(kept) == {"first_row", "second_row", "third_row", "machine_cpu_share"}
    assert set(kept["machine_cpu_share"]["parts"]) == {"first", "second", "third"}
    bench.bench("fake", False, tmp_path, resume=True)
    assert len(done) == 6, "quick rows are no rows of a full run"
    bench.bench("fake", False, tmp_path)
    assert len(done) == 9, "without resume everything is measured again"
    bench.bench("fake", False, tmp_path, only=["second"])
    assert done[9:] == ["second"] and "third_row" in json.loads((tmp_path / "bench.json").read_text()), (
        "others are kept"
    )
    with pytest.raises(InputError, match="first, second, third"):
        bench.bench("fake", False, tmp_path, only=["fourth"])


def test_every_listed_benchmark_can_run(capsys):
    from importlib import import_module

    code, out, _ = call(capsys, "bench")
    assert code == 0
    for name in out.split():
        assert callable(import_module(f"robopref.benchmarks.{name}").run), name


def test_doctor_tells_what_the_machine_can_do_in_five_seconds():
    begin = time.monotonic()
    asked = subprocess.run([*COMMAND, "doctor", "--json"], capture_output=True, text=True, check=True)
    taken = time.monotonic() - begin
    found = json.loads(asked.stdout)
    assert found["python"]["version"].startswith("3.")
    assert {"torch", "gl egl", "gl osmesa", "video", "machine", "ros", "extras"} <= found.keys()
    assert found["machine"]["cores"] >= 1 and "robomimic" in found["extras"]
    assert taken < 7.0, "promised: under 5 s on a quiet machine"


def test_doctor_prints_lines_for_people(capsys):
    from robopref.doctor import show

    show({
        "python": {"version": "3.11.9", "executable": "python"},
        "machine": {"cores": 2, "cores_total": 4, "memory_gb": None, "memory_free_gb": None, "disk_free_gb": 9.0},
        "ros": {"distro": None, "command": None, "rclpy": False}, "ffmpeg": {"command": None},
        "extras": {"track": {"tensorboard": None}, "dev": {"pytest": "9"}},
        "torch": {"error": "no answer"}, "video": {"error": "ModuleNotFoundError: av"},
        "gl egl": {"error": "ImportError: no EGL"}, "gl osmesa": {"error": "none"},
    })  # fmt: skip
    out = " ".join(capsys.readouterr().out.split())
    assert "no backend draws" in out and "pip install 'robopref[track]'" in out and "ImportError: no EGL" in out


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
