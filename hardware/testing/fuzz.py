"""Damaged rosbridge frames through the decoder, the reading of commands and an armed guard: no crash, and no command."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import command as wire
from ..command import Command
from ..frames import Decoder, FrameError, to_png
from ..guard import Guard
from ..reasons import REFUSED

HOME = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


@dataclass
class Fuzzed:
    """What became of the frames."""

    frames: int = 0
    messages: int = 0
    """Frames that still were messages."""
    taken: int = 0
    """Frames that arrived as they were sent, and were taken."""
    commands: int = 0
    """Commands that an armed guard took although nobody had sent them."""


def fuzz_frames(count: int, seed: int) -> Fuzzed:
    """Damage `count` frames and give each to a decoder and an armed guard of epoch 7; half of what is sent is of that epoch.

    What the guard takes must be what was sent: damage may lie where it does no harm, or there may be none.
    """
    rng, found, decoder = np.random.default_rng(seed), Fuzzed(), Decoder()
    guard = Guard()
    guard.link(True, 0.0)
    guard.follow(HOME)
    assert not guard.arm(7, HOME, 1, 0.0)
    for number in range(count):
        found.frames += 1
        try:
            sent = _sent(rng, number)
            message = decoder.decode(_damaged(rng, sent))
        except FrameError:
            continue
        if message is None:
            continue
        found.messages += 1
        read = _read(message)
        if read is not None and not guard.receive(read, 1.0) & REFUSED:
            as_sent = wire.message(read) == wire.message(sent)
            found.taken += as_sent
            found.commands += not as_sent
    return found


def _read(message: dict[str, Any]) -> Command | None:
    """The command in a publish, read as a robot-side subscriber would."""
    body = message.get("msg")
    if not isinstance(body, dict):
        return None
    header, points = body.get("header"), body.get("points")
    frame = header.get("frame_id", "") if isinstance(header, dict) else ""
    names = body.get("joint_names")
    listed = points if isinstance(points, list) and all(isinstance(p, dict) for p in points) else []
    return wire.read(frame, names if isinstance(names, list) else [], listed)


def _sent(rng: np.random.Generator, number: int) -> Command:
    """A command to damage; at times of the armed epoch, a fifth of a second old at most."""
    epoch = 7 if rng.random() < 0.5 else int(rng.integers(0, 7))
    return Command(epoch, number, 0.95, 0.9, 0, 0, HOME + 0.1 * rng.normal(size=7), None, 0.05)


def _damaged(rng: np.random.Generator, command: Command) -> str | bytes:
    """A frame of a random kind with random damage."""
    import cbor2

    message: dict[str, Any] = {"op": "publish", "topic": "/cmd", "msg": wire.message(command)}
    point = message["msg"]["points"][0]
    kind = rng.integers(8)
    if kind == 0:
        point["positions"] = [None, "x", [], {}, True, 1e308, -0.0][: rng.integers(1, 8)]
    elif kind == 1:
        point["time_from_start"] = ["x", None, 3, -1][rng.integers(4)]
        point = json.loads(json.dumps(point, default=str))
    elif kind == 2:
        message["msg"]["header"] = [None, 3, "x"][rng.integers(3)]
    elif kind == 3:
        message["msg"]["joint_names"] = [[], 3, None, "fr3_joint1"][rng.integers(4)]
    elif kind == 4:
        message = {
            "op": "fragment",
            "id": str(rng.integers(3)),
            "num": int(rng.integers(4)),
            "total": 3,
            "data": '{"op"',
        }
    text = json.dumps(message, default=str)
    if kind == 5:
        text = json.dumps({"op": "png", "data": to_png(text)})
    data = bytearray(cbor2.dumps(message) if kind == 6 else text.encode())
    for _ in range(rng.integers(0, 4)):
        at = int(rng.integers(len(data)))
        cut = rng.integers(3)
        if cut == 0:
            data[at] = rng.integers(256)
        elif cut == 1:
            del data[at : at + int(rng.integers(1, 20))]
        else:
            data[at:at] = bytes(rng.integers(0, 256, 5, dtype=np.uint8))
        if not data:
            data = bytearray(b"{")
    return bytes(data) if kind == 6 else data.decode("utf-8", errors="replace")
