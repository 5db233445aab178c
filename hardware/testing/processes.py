"""The real peers as child processes with scrubbed environments: simulator, bridge, arm node. Loopback only."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from robopref.arrays import InputError

from .environments import Environments, bridge_binary

FCI_PORT = 1337


class Process:
    """A child that ends with its owner, and whose output lies in a log file."""

    def __init__(self, command: Sequence[object], environment: Mapping[str, str], log: Path) -> None:
        self.command, self.environment, self.log = [str(word) for word in command], dict(environment), log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the child."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.log.parent,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the child."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def kill(self) -> None:
        """End the child at once."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def stop(self) -> None:
        """Ask the child to end, and make it after three seconds."""
        if self._child is None:
            return
        self.send(signal.SIGCONT)
        self.send(signal.SIGINT)
        try:
            self._child.wait(3.0)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        assert self._child is not None
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def check(self) -> None:
        """Raises `InputError` with the log's end if the child has ended."""
        if not self.alive:
            tail = self.log.read_text(errors="replace")[-1500:]
            raise InputError(f"{Path(self.command[0]).name}: got an end, wanted it to run\n{tail}")

    def wait_for_port(self, port: int, seconds: float = 30.0) -> None:
        """Return once 127.0.0.1:port accepts. Raises `InputError` with the log's end when the child dies or takes longer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.socket() as probe:
                probe.settimeout(0.5)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if not self.alive:
                break
            time.sleep(0.05)
        tail = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        raise InputError(
            f"{Path(self.command[0]).name}: got no answer on port {port}, wanted one within {seconds} s\n{tail}"
        )


def scrubbed(home: Path, **more: str) -> dict[str, str]:
    """An environment that carries nothing of ours into a peer."""
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **more}


def simulator(environments: Environments, folder: Path) -> Process:
    """The Franka protocol simulator with our model; limits, reflexes and lost cycles are enforced as on the robot."""
    options = ["--enforce-comm-constraints", "--enforce-motion-limits", "--gripper-object-width", "0.04"]
    command = [environments.franka / "bin/run-franka-sim-server", *options]
    return Process(command, scrubbed(folder, FR3_MJCF=str(environments.fr3_model)), folder / "simulator.log")


def ros_environment(environments: Environments, folder: Path) -> dict[str, str]:
    """What ROS programs of our environment need; discovery stays on this machine."""
    packages = bridge_binary(environments.ros).parents[1]
    shim = folder / "rmw"
    shim.mkdir(parents=True, exist_ok=True)
    link = shim / "librmw_implementation.so"
    if not link.is_symlink():
        link.symlink_to(environments.ros / "lib/librmw_fastrtps_cpp.so")
    libraries = [shim, environments.ros / "lib", *sorted(packages.glob("ros_*.libs"))]
    return scrubbed(
        folder,
        ROS_DISTRO="jazzy",
        ROS_DOMAIN_ID="77",
        ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST",
        ROS_LOG_DIR=str(folder / "ros"),
        AMENT_PREFIX_PATH=str(environments.ros),
        RMW_IMPLEMENTATION="rmw_fastrtps_cpp",
        LD_LIBRARY_PATH=os.pathsep.join(map(str, libraries)),
        PYTHONPATH=str(environments.shim),
        _ROS_WHEELS_BOOTSTRAP_COMPLETE="1",
    )


def bridge(
    environments: Environments, folder: Path, port: int, topics: Mapping[str, Sequence[str]] | None = None
) -> Process:
    """rosbridge-server-rs on loopback. `topics`: {"pub": [...], "sub": [...], "services": [...]}, None: everything."""
    lines = ['address = "127.0.0.1"', f"port = {port}"]
    if topics is not None:
        quoted = {key: "[" + ", ".join(f'"{name}"' for name in names) + "]" for key, names in topics.items()}
        lines += [
            "topics_glob = []",
            f"topics_pub_glob = {quoted['pub']}",
            f"topics_sub_glob = {quoted['sub']}",
            f"services_glob = {quoted['services']}",
            "params_glob = []",
        ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bridge.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    asked = "import sysconfig as s; print(s.get_config_var('LIBDIR') + '/' + s.get_config_var('INSTSONAME'))"
    python = environments.ros / "bin/python"
    found = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()
    environment = ros_environment(environments, folder) | {"LD_PRELOAD": found}
    command = [bridge_binary(environments.ros), "--config", folder / "bridge.toml", "--no-rosapi"]
    return Process(command, environment, folder / "bridge.log")


def ros_program(environments: Environments, folder: Path, module: str, *words: str) -> Process:
    """One of our robot-side modules in the ROS environment."""
    command = [environments.ros / "bin/python", "-m", module, *words]
    environment = ros_environment(environments, folder) | {"FRANKA_REALTIME": "ignore"}
    return Process(command, environment, folder / f"{module.rpartition('.')[2]}.log")


def own_program(folder: Path, module: str, *words: str) -> Process:
    """One of our modules in robopref's own environment."""
    keep = {k: v for k, v in os.environ.items() if k in ("MUJOCO_GL", "VIRTUAL_ENV", "NUMBA_DISABLE_JIT")}
    environment = scrubbed(folder, **keep)
    return Process([sys.executable, "-m", module, *words], environment, folder / f"{module.rpartition('.')[2]}.log")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
