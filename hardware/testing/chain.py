"""The real chain on one machine: simulator, arm node and bridge in ROS 2, policy server; each a process of its own."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from . import processes
from .environments import Environments

# What outsiders of the bridge may do; an omitted list would be open.
GLOBS = {
    "pub": ["/robopref/command", "/robopref/control", "/robopref/camera/compressed"],
    "sub": ["/joint_states", "/robopref/status", "/robopref/camera/compressed"],
    "services": ["/robopref/estop"],
}

_PACE = re.compile(r"simulation running at ([0-9.]+)x real time")
_PATIENCE = 300.0
"""Seconds that a part may take to start: minutes on a machine that is busy with other things."""


class Chain:
    """`with Chain(environments, folder, checkpoint) as chain:`; parts can be killed and started again one by one."""

    def __init__(
        self,
        environments: Environments,
        folder: Path,
        checkpoint: Path | None,
        speed: float = 0.3,
        journal: bool = False,
        server: Sequence[str] = (),
    ) -> None:
        """server: further words for `robopref serve`."""
        self.bridge_port, self.policy_port = processes.free_port(), processes.free_port()
        words = ["--address", "127.0.0.1", "--realtime", "ignore", "--speed", str(speed)]
        words += ["--journal", str(folder / "journal.jsonl")] if journal else []
        latch = folder / "estop"
        latch.unlink(missing_ok=True)  # nobody was stopped in a simulation that begins
        words += ["--stop-file", str(latch)]
        self.folder, self.journal = folder, folder / "journal.jsonl"
        self.simulator = processes.simulator(environments, folder)
        self.bridge = processes.bridge(environments, folder, self.bridge_port, GLOBS)
        self.node = processes.ros_program(environments, folder, "robopref.hardware.ros_node", *words)
        self.server: processes.Process | None = None
        if checkpoint is not None:
            told = [f"checkpoint={checkpoint}", f"port={self.policy_port}", *(server or ("device=cpu",))]
            self.server = processes.own_program(folder, "robopref.cli", "serve", *told)
        self._open = contextlib.ExitStack()

    @property
    def bridge_url(self) -> str:
        """Where the bridge listens."""
        return f"ws://127.0.0.1:{self.bridge_port}"

    @property
    def policy_url(self) -> str:
        """Where the policy server listens."""
        return f"ws://127.0.0.1:{self.policy_port}"

    def __enter__(self) -> Chain:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.simulator)
            self.simulator.wait_for_port(processes.FCI_PORT, _PATIENCE)
            stack.enter_context(self.bridge)
            stack.enter_context(self.node)
            if self.server is not None:
                stack.enter_context(self.server)
                self.server.wait_for_port(self.policy_port, 2 * _PATIENCE)
            self.bridge.wait_for_port(self.bridge_port, _PATIENCE)
            self.node.check()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def complaints(self) -> Complaints:
        """What the simulator complained about until now."""
        log = self.simulator.log.read_text(errors="replace") if self.simulator.log.exists() else ""
        return read_complaints(log)


@dataclass(frozen=True)
class Complaints:
    """What the simulator says of a run."""

    broken_limits: list[str]
    """Lines about a position, velocity, acceleration, jerk, torque or distance outside of what the arm allows: the guard's fault."""
    lost_cycles: list[str]
    """Lines about runs of lost cycles, which stop the arm as on the robot: somebody did not get the processor in time."""
    real_time: float | None
    """Slowest pace of the simulation, 1 is real time; None if it never said that it was late."""


def read_complaints(log: str) -> Complaints:
    """The complaints in the text of a simulator's log."""
    told = [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line]
    lost = [line for line in told if "communication_constraints" in line]
    words = ("violation", "discontinuity", "reflex")
    broken = [
        line
        for line in told
        if line not in lost and any(word in line for word in words) and "still latched" not in line
    ]
    paces = [float(pace) for pace in _PACE.findall(log)]
    return Complaints(broken, lost, min(paces, default=None))
