"""`robopref doctor`: what this machine can do, in under five seconds. Slow questions run side by side in child processes."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_DEADLINE = 4.0
"""Seconds after which an unanswered question is reported as such."""

_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({"version": torch.__version__, "gpus": gpus, "threads": torch.get_num_threads()}))
"""
_GL = """
import json, mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom type='sphere' size='1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    print(json.dumps({"drew": int(renderer.render().size)}))
"""
_CODECS = """
import json, av
wanted = ["libx264", "libsvtav1", "libx265"]
print(json.dumps({"version": av.__version__, "encoders": [name for name in wanted if name in av.codecs_available]}))
"""


def examine() -> dict[str, Any]:
    """Findings by topic; a topic that failed has an `error` saying why. JSON-ready."""
    children = {
        "torch": _ask(_TORCH),
        "gl egl": _ask(_GL, MUJOCO_GL="egl"),
        "gl osmesa": _ask(_GL, MUJOCO_GL="osmesa"),
        "video": _ask(_CODECS),
    }
    if os.environ.get("DISPLAY"):
        children["gl glfw"] = _ask(_GL, MUJOCO_GL="glfw")
    findings: dict[str, Any] = {
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "machine": _machine(),
        "ros": {"distro": os.environ.get("ROS_DISTRO"), "command": shutil.which("ros2"), "rclpy": _found("rclpy")},
        "ffmpeg": {"command": shutil.which("ffmpeg")},
        "extras": _extras(),
    }
    end = time.monotonic() + _DEADLINE
    findings |= {name: _answer(child, end) for name, child in children.items()}
    if "error" in findings["torch"] and (version := _version("torch")):
        findings["torch"] |= {"version": version, "nvidia_smi": shutil.which("nvidia-smi")}
    return findings


def show(findings: dict[str, Any]) -> None:
    """Print the findings as a table, with what to do about what is missing."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for mark, topic, text in _lines(findings):
        table.add_row({True: "[green]ok[/]", False: "[yellow]--[/]"}[mark], f"[bold]{topic}[/]", text)
    Console().print(table)


def _lines(found: dict[str, Any]) -> list[tuple[bool, str, str]]:
    """(fine, topic, what to know) per line of the table."""
    machine, torch, video, ros = found["machine"], found["torch"], found["video"], found["ros"]
    backends = {name.split()[1]: value for name, value in found.items() if name.startswith("gl ")}
    working = [name for name, value in backends.items() if "error" not in value]
    python = found["python"]["version"]
    gpus = torch.get("gpus", [])
    gpu = ", ".join(gpus) or "none seen; everything runs on the CPU"
    if "error" in torch:  # slow is not broken: say what is known without importing it
        gpu = "a driver is installed; torch was too slow to ask" if torch.get("nvidia_smi") else "no driver found"
    threads = f"{torch['threads']} threads" if "threads" in torch else torch.get("error", "")
    missing = "; ".join(f"{name}: {value['error']}" for name, value in backends.items() if "error" in value)
    no_gl = f"no backend draws; state runs do not need one. Debian: libegl1 libgl1-mesa-dri ({missing})"
    lines = [
        ((3, 11) <= sys.version_info[:2] < (3, 14), "python", python),
        ("version" in torch, "torch", ", ".join(part for part in (torch.get("version"), threads) if part)),
        (bool(gpus), "gpu", gpu),
        (bool(working), "pictures", f"MUJOCO_GL={' or '.join(working)}" if working else no_gl),
        ("libx264" in video.get("encoders", []), "video", video.get("error") or f"av {video['version']}: {' '.join(video['encoders'])}"),
        (True, "cores", f"{machine['cores']} usable of {machine['cores_total']}"),
        (machine["memory_gb"] is None or machine["memory_gb"] >= 4, "memory", f"{machine['memory_gb']} GB, {machine['memory_free_gb']} GB free"),
        (machine["disk_free_gb"] >= 5, "disk", f"{machine['disk_free_gb']} GB free here"),
        (bool(ros["distro"] or ros["command"]), "ros", ros["distro"] or "not found; only robots need it"),
    ]  # fmt: skip
    for extra, packages in found["extras"].items():
        absent = [name for name, version in packages.items() if version is None]
        text = f"missing {', '.join(absent)}: pip install 'robopref[{extra}]'" if absent else "installed"
        lines.append((not absent, f"[{extra}]".replace("[", r"\["), text.replace("[", r"\[")))
    return lines


def _ask(code: str, **environment: str) -> subprocess.Popen[str]:
    """Start a child process that prints its answer as one JSON line; a crash in a driver stays in the child."""
    command = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)


def _answer(child: subprocess.Popen[str], end: float) -> dict[str, Any]:
    try:
        out, err = child.communicate(timeout=max(0.05, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return {"error": f"no answer within {_DEADLINE:.0f} s (a first import is slow; ask again)"}
    if child.returncode == 0:
        answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return answer
    said = [line.strip() for line in err.splitlines() if re.match(r"\s*[\w.]*(Error|Exception|Warning)\b", line)]
    return {
        "error": (said or err.strip().splitlines() or [f"ended with code {child.returncode}"])[-1 if not said else 0][
            :120
        ]
    }


def _machine() -> dict[str, Any]:
    gigabyte = 1024**3
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    total = free = None
    if sys.platform == "linux":
        listing = Path("/proc/meminfo").read_text(encoding="ascii")
        pairs = re.findall(r"^(\w+):\s+(\d+) kB$", listing, re.MULTILINE)
        memory = {name: int(value) / 1024**2 for name, value in pairs}
        total, free = round(memory["MemTotal"], 1), round(memory.get("MemAvailable", memory["MemFree"]), 1)
    return {
        "system": platform.platform(),
        "cores": usable,
        "cores_total": os.cpu_count(),
        "memory_gb": total,
        "memory_free_gb": free,
        "disk_free_gb": round(shutil.disk_usage(".").free / gigabyte, 1),
    }


def _extras() -> dict[str, dict[str, str | None]]:
    """extra -> package -> installed version or None, as the package's own metadata lists them."""
    extras: dict[str, dict[str, str | None]] = {}
    for line in metadata.requires("robopref") or ():
        match = re.match(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]", line)
        if match:
            extras.setdefault(match.group(2), {})[match.group(1)] = _version(match.group(1))
    return extras


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _found(module: str) -> bool:
    return find_spec(module) is not None
