"""Every rollout on the arm becomes an episode file, and finished episodes become a trajectory store that can be labelled.

While recording, rows are appended to `NUMBER.partial` (msgpack, one map per row, flushed), written by a thread of its own behind a
bounded queue: a slow or full disk drops rows and counts them, and never blocks the loop. A file is renamed when its episode is complete, so
a kill costs at most the open episode, and even its rows can be read.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from scipy.optimize import linear_sum_assignment

from robopref.arrays import InputError, Trajectory
from robopref.data.files import write_json
from robopref.data.writer import StoreWriter

from .drawing import from_jpeg
from .packing import PackingError, pack, unpack
from .periods import Step
from .reasons import State

FINISHED, PARTIAL = ".episode", ".partial"
_MASKED = {State.HOLD, State.REFLEX, State.ESTOP, State.RECOVERING, State.DISCONNECTED, State.IDLE}
_STOP = object()


class Recorder:
    """`recorder.begin(...)`, `recorder(step)` per period, `recorder.end(success)`; files lie in `folder`."""

    def __init__(self, folder: Path, capacity: int = 512) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.dropped, self.failure, self.episodes = 0, "", 0
        self._queue: queue.Queue[Any] = queue.Queue(capacity)
        self._open = False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def begin(self, **about: Any) -> None:
        """Start an episode: task, seed, instruction, policy hash, configuration."""
        if self._open:
            self.end(False)
        self._open = True
        self._put({"row": "begin", **about})

    def __call__(self, step: Step) -> None:
        """Record one period of the loop."""
        if self._open and step.reading is not None and step.observation is not None:
            self._put(_row(step))

    def end(self, success: bool, **about: Any) -> None:
        """Finish the episode."""
        if self._open:
            self._open = False
            self._put({"row": "end", "success": bool(success), **about})

    def drop(self) -> None:
        """Forget the open episode: nothing ran in it."""
        if self._open:
            self._open = False
            self._put({"row": "drop"})

    def close(self) -> None:
        """Write what waits and stop."""
        self.end(False)
        self._queue.put(_STOP)
        self._thread.join(10.0)

    def _put(self, row: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self.dropped += 1

    def _write(self) -> None:
        """The writing thread: one file per episode; an error of the disk ends that episode and is kept to be shown."""
        file, path = None, Path()
        while (row := self._queue.get()) is not _STOP:
            try:
                if row["row"] == "begin":
                    number = 1 + max((int(p.stem) for p in self.folder.iterdir() if p.stem.isdigit()), default=-1)
                    path = self.folder / f"{number:06d}{PARTIAL}"
                    file = path.open("wb")
                if file is None:
                    self.dropped += 1
                    continue
                if row["row"] == "drop":
                    file.close()
                    path.unlink()
                    file = None
                    continue
                data = pack(row)
                file.write(len(data).to_bytes(4, "little") + data)
                file.flush()
                if row["row"] == "end":
                    os.fsync(file.fileno())
                    file.close()
                    path.rename(path.with_suffix(FINISHED))
                    file, self.episodes = None, self.episodes + 1
            except OSError as error:
                self.failure = f"{path.name}: {error.strerror}"
                self.dropped += 1
                if file is not None:
                    with contextlib.suppress(OSError):  # what it still holds has no room either
                        file.close()
                file = None
        if file is not None:
            file.close()


def _row(step: Step) -> dict[str, Any]:
    """A step as what msgpack carries."""
    reading, due, status = step.reading, step.due, step.status
    assert reading is not None
    row: dict[str, Any] = {
        "row": "step", "number": step.number, "stamp": reading.stamp, "age": reading.age, "q": reading.q, "dq": reading.dq,
        "tau": reading.tau, "observation": step.observation, "state": str(status.get("state", "")),
        "why": list(status.get("why", [])), "reasons": int(status.get("reasons", 0)), "epoch": status.get("epoch", -1),
        "acknowledged": status.get("seq", -1), "mode": status.get("mode", -1), "gripper": float(status.get("gripper", 0.0)),
        "executed": np.asarray(status.get("target", reading.q), dtype=np.float64), "sent": step.sent,
        "lateness": step.lateness, "latency": step.latency, "reward": step.reward, "success": step.success,
    }  # fmt: skip
    if due is not None and step.target is not None:
        row |= {"action": due.action, "target": step.target, "observed": due.observed, "index": due.index}
    if step.adopted is not None:
        row["chunk"] = step.adopted
    if step.picture is not None:
        row["picture"] = step.picture
    return row


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of an episode file, finished or not; a torn end is left out."""
    data = path.read_bytes()
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        piece = data[at + 4 : at + 4 + length]
        if len(piece) < length:
            return
        try:
            yield unpack(piece)
        except (PackingError, msgpack.exceptions.UnpackException):
            return
        at += 4 + length


def trajectory(path: Path) -> Trajectory | None:
    """The trajectory of a finished episode, or None if the arm ran no action in it, or only while it was held."""
    rows = list(read(path))
    about, end = rows[0], rows[-1]
    steps = [row for row in rows if row["row"] == "step"]
    ran = [row for row in steps if "action" in row]
    if all(row["state"] in _MASKED for row in ran):
        return None
    width, steps = len(ran[0]["action"]), steps[_first(steps, ran[0]) : steps.index(ran[-1]) + 1]
    action = np.stack([row.get("action", np.zeros(width)) for row in steps]).astype(np.float32)
    masked = np.array([row["state"] in _MASKED or "action" not in row for row in steps])
    success = np.array([bool(row.get("success", False)) for row in steps])
    success[-1] |= bool(end.get("success", False)) and not success.any()
    reward = np.array([row.get("reward", 0.0) for row in steps], dtype=np.float32)
    chunk, executed = _chunks(steps, width, masked)
    pictures = _pictures(steps)
    return Trajectory(
        np.stack([np.asarray(row["observation"])[-1] for row in steps]).astype(np.float32), action,
        reward if reward.any() else success.astype(np.float32), success, str(about.get("task", "arm")), int(about.get("seed", -1)),
        str(end.get("policy_hash") or about.get("policy_hash", "")), str(about.get("env", "arm")), None, chunk, executed,
        {"camera": pictures} if pictures is not None else {}, _extra(steps, masked),
    )  # fmt: skip


def _first(steps: Sequence[dict[str, Any]], ran: dict[str, Any]) -> int:
    """Where an episode begins: at the observation behind its first action, which waited for the answer meanwhile."""
    place = {row["number"]: at for at, row in enumerate(steps)}
    return place.get(ran["observed"], steps.index(ran))


def _chunks(steps: Sequence[dict[str, Any]], width: int, masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predicted chunks at the steps whose observation they came from, and which of their rows ran outside of holds."""
    horizon = max((len(row["chunk"]) for row in steps if "chunk" in row), default=1)
    chunk = np.zeros((len(steps), horizon, width), dtype=np.float32)
    executed = np.zeros((len(steps), horizon), dtype=bool)
    place = {row["number"]: at for at, row in enumerate(steps)}
    for at, row in enumerate(steps):
        if "action" not in row or row["observed"] not in place or row["index"] >= horizon:
            continue
        start = place[row["observed"]]
        if "chunk" in row:  # the whole prediction: a policy's likelihood is of a chunk, also of the rows that never ran
            chunk[start, : len(row["chunk"])] = row["chunk"]
        if not masked[at]:
            chunk[start, row["index"]] = row["action"]
            executed[start, row["index"]] = True
    return chunk, executed


def _extra(steps: Sequence[dict[str, Any]], masked: np.ndarray) -> dict[str, np.ndarray]:
    """Further columns. The reason bits are two numbers, since float32 holds 24 bits: the low 16, and the rest."""
    reasons = np.array([row["reasons"] for row in steps], dtype=np.int64)
    targets = np.stack([np.asarray(row.get("target", row["executed"])) for row in steps])
    return {
        "safety.reason": np.stack([reasons & 0xFFFF, reasons >> 16], axis=1).astype(np.float32),
        "safety.masked": masked[:, None].astype(np.float32),
        "proposed_target": targets.astype(np.float32),
        "executed_target": np.stack([row["executed"] for row in steps]).astype(np.float32),
        "joints": np.stack([np.concatenate([row["q"], row["dq"], row["tau"]]) for row in steps]).astype(np.float32),
        "latency": np.nan_to_num(np.array([[row["latency"], row["age"]] for row in steps]), nan=-1.0).astype(
            np.float32
        ),
        "robot_mode": np.array([[row["mode"], row["epoch"]] for row in steps], dtype=np.float32),
    }


def _pictures(steps: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """(T, height, width, 3) uint8: at each step the newest picture; None if the episode has none."""
    shown, last = [], None
    for row in steps:
        if "picture" in row:
            with contextlib.suppress(ValueError):
                last = from_jpeg(row["picture"])
        shown.append(last)
    first = next((picture for picture in shown if picture is not None), None)
    if first is None:
        return None
    return np.stack([first if p is None or p.shape != first.shape else p for p in shown])


def assemble(folder: Path, store: Path, fps: int) -> int:
    """Write the finished episodes of a recorder as a trajectory store; returns how many. Raises `InputError` for none."""
    made = [t for path in sorted(folder.glob(f"*{FINISHED}")) if (t := trajectory(path)) is not None]
    if not made:
        raise InputError(f"{folder}: got no finished episode in which the arm ran, wanted at least one.")
    made = _alike(made)
    with StoreWriter(store, fps=fps) as writer:
        for one in made:
            writer.add(one)
    write_json(store / "meta/preferences/candidates.json", {"pairs": propose_pairs(made)})
    return len(made)


def _alike(made: list[Trajectory]) -> list[Trajectory]:
    """The trajectories with the same columns: chunks of one length, and black pictures where a camera was silent all along."""
    horizon = max(one.chunk.shape[1] for one in made if one.chunk is not None)
    shape = next((one.images["camera"].shape[1:] for one in made if one.images), None)
    alike = []
    for one in made:
        assert one.chunk is not None
        assert one.executed is not None
        room = horizon - one.chunk.shape[1]
        images = dict(one.images)
        if shape is not None and (not images or images["camera"].shape[1:] != shape):
            images = {"camera": np.zeros((len(one), *shape), dtype=np.uint8)}
        chunk, executed = np.pad(one.chunk, ((0, 0), (0, room), (0, 0))), np.pad(one.executed, ((0, 0), (0, room)))
        alike.append(replace(one, chunk=chunk, executed=executed, images=images))
    return alike


def propose_pairs(trajectories: Sequence[Trajectory], limit: int = 100) -> list[dict[str, Any]]:
    """Pairs worth asking about: episodes that start alike (least total distance), most differing in guard intervention first."""
    count = len(trajectories)
    if count < 2:
        return []
    starts = np.stack([t.observation[0] for t in trajectories])
    spread = starts.std(0) + 1e-6
    cost = np.linalg.norm((starts[:, None] - starts[None]) / spread, axis=-1)
    np.fill_diagonal(cost, 1e9)
    touched = np.array(
        [float(t.extra["safety.masked"].mean()) if "safety.masked" in t.extra else 0.0 for t in trajectories]
    )
    rows, columns = linear_sum_assignment(cost)
    pairs = {tuple(sorted((int(i), int(j)))) for i, j in zip(rows, columns, strict=True)}
    listed = [
        {"first": i, "second": j, "distance": round(float(cost[i, j]), 4), "contrast": round(float(abs(touched[i] - touched[j])), 4)}
        for i, j in pairs
    ]  # fmt: skip
    return sorted(listed, key=lambda pair: (-pair["contrast"], pair["distance"]))[:limit]


def summary(folder: Path) -> str:
    """One line per episode file: length, end, size."""
    lines = []
    for path in sorted([*folder.glob(f"*{FINISHED}"), *folder.glob(f"*{PARTIAL}")]):
        rows = list(read(path))
        end = rows[-1] if rows and rows[-1]["row"] == "end" else {}
        lines.append(
            f"{path.name}: {sum(r['row'] == 'step' for r in rows)} steps, {json.dumps(end.get('success', 'open'))}"
        )
    return "\n".join(lines)
