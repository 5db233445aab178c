"""The real chain on one machine: simulator, arm node and bridge in ROS 2, policy server; each a process of its own."""

from __future__ import annotations

import contextlib
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


class Chain:
    """`with Chain(environments, folder, checkpoint) as chain:`; parts can be killed and started again one by one."""

    def __init__(
        self,
        environments: Environments,
        folder: Path,
        checkpoint: Path | None,
        speed: float = 0.3,
        journal: bool = False,
    ) -> None:
        self.bridge_port, self.policy_port = processes.free_port(), processes.free_port()
        words = ["--address", "127.0.0.1", "--realtime", "ignore", "--speed", str(speed)]
        words += ["--journal", str(folder / "journal.jsonl")] if journal else []
        self.folder, self.journal = folder, folder / "journal.jsonl"
        self.simulator = processes.simulator(environments, folder)
        self.bridge = processes.bridge(environments, folder, self.bridge_port, GLOBS)
        self.node = processes.ros_program(environments, folder, "robopref.hardware.ros_node", *words)
        self.server: processes.Process | None = None
        if checkpoint is not None:
            told = [f"checkpoint={checkpoint}", f"port={self.policy_port}", "device=cpu"]
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
            self.simulator.wait_for_port(processes.FCI_PORT, 120.0)
            stack.enter_context(self.bridge)
            stack.enter_context(self.node)
            if self.server is not None:
                stack.enter_context(self.server)
                self.server.wait_for_port(self.policy_port, 600.0)
            self.bridge.wait_for_port(self.bridge_port, 60.0)
            self.node.check()
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def violations(self) -> list[str]:
        """What the simulator complained about: broken limits, reflexes, lost cycles."""
        log = self.simulator.log.read_text(errors="replace") if self.simulator.log.exists() else ""
        words = ("violation", "discontinuity", "reflex")
        return [
            line
            for line in log.splitlines()
            if ("WARNING" in line or "ERROR" in line) and any(w in line for w in words)
        ]
