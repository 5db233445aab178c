"""Files appear only when complete; a full disk is told and damages nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.data.files import atomic_file, atomic_folder, locked, read_json, write_json
from robopref.data.store import StoreWriter
from robopref.data.validate import validate


def write(root, episodes):
    with StoreWriter(root) as writer:
        for trajectory in episodes:
            writer.add(trajectory)


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def stop_half_way():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert read_json(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert read_json(path) == {"a": 1}


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "f", replace=True) as folder:
            (folder / "x").write_text(content)
    assert (tmp_path / "f/x").read_text() == "new" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="exists"), atomic_folder(tmp_path / "f"):
        pass


FULL = """
import json, resource, shutil, signal, sys
sys.path[:0] = [sys.argv[2]]
import numpy as np
from pathlib import Path
from episodes import episode
from robopref.arrays import InputError
from robopref.data.convert import convert
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore
root = Path(sys.argv[1])
store, sidecar = TrajectoryStore(root / "store"), PreferenceStore(TrajectoryStore(root / "store"))
limit = int(sys.argv[3])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if limit:  # otherwise the disk is a small one: fill it up to the last 60 kB
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
else:
    (root / "store/ballast").write_bytes(bytes(max(shutil.disk_usage(root).free - 60_000, 0)))
def write():
    with StoreWriter(root / "new", fps=10) as writer:
        for i in range(40):
            writer.add(episode(i, 200, state=300))
def pictures():
    with StoreWriter(root / "new", fps=10) as writer:
        for i in range(40):
            writer.add(episode(i, 300, camera=True, state=0))
def hdf5():
    convert(root / "store", root / "new.hdf5", "robomimic")
def append():
    rng = np.random.default_rng(0)
    sidecar.append([Pair(Window(0, 0, 5), Window(1, 0, 5), 1.0, notes=rng.bytes(99).hex()) for _ in range(9000)])
told = []
for job in (write, pictures, hdf5, append):
    try:
        job()
        told.append("nothing")
    except InputError as error:
        told.append(str(error))
print(json.dumps(told))
"""


def run_full(folder, limit):
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "error", "-c", FULL, str(folder), here, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for told in json.loads(done.stdout):
        assert "disk is full" in told and told.count("\n") < 5
    assert sorted(p.name for p in folder.iterdir()) == ["store"]
    assert validate(folder / "store") == []
    assert list((folder / "store/meta/preferences").glob("*")) in ([], [folder / "store/meta/preferences/info.json"])


def test_a_full_quota_is_told_and_damages_nothing(tmp_path):
    write(tmp_path / "store", [episode(i, 150) for i in range(6)])
    run_full(tmp_path, 30_000)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_damages_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        write(disk / "store", [episode(i, 150) for i in range(6)])
        run_full(disk, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_belongs_to_one_process_and_a_killed_one_lets_go(tmp_path):
    hold = "import sys, time; from robopref.data.files import locked\nwith locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process"), locked(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    with locked(tmp_path):
        pass
