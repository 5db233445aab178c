"""`robopref bench` and `robopref doctor`: what they show, keep and promise."""

import json

import pytest
from command import call, processor_time

from robopref import bench
from robopref.arrays import InputError


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
    from robopref.doctor import _DEADLINE

    taken, said = processor_time("doctor", "--json")
    found = json.loads(said)
    assert found["python"]["version"].startswith("3.")
    assert {"torch", "gl egl", "gl osmesa", "video", "machine", "ros", "extras"} <= found.keys()
    assert found["machine"]["cores"] >= 1 and "robomimic" in found["extras"]
    assert taken + _DEADLINE < 5.0, "promised: its own work, and the longest it waits for what it asks side by side"


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
