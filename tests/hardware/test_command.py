"""A command on the wire: it survives its message, and what is wrong with one becomes a fault, never an exception."""

import numpy as np
import pytest
from robopref.hardware import command as wire
from robopref.hardware.command import Command
from robopref.hardware.reasons import REFUSED, Reason
from robopref.hardware.testing.bench import HOME, Bench


def test_a_command_survives_its_message():
    command = Command(3, 1207, 12.345678, 12.3, 4, 88, HOME, 0.04, 0.066)
    told = wire.message(command)
    again = wire.read(told["header"]["frame_id"], told["joint_names"], told["points"])
    assert (again.epoch, again.seq, again.step, again.chunk, again.gripper) == (3, 1207, 4, 88, 0.04)
    assert again.seen == pytest.approx(command.seen, abs=1e-6)
    np.testing.assert_allclose(again.target, HOME, rtol=0, atol=0.5001e-9)  # sent in billionths of a radian
    assert again.duration == pytest.approx(0.066) and again.fault == Reason.NONE


HEAD = wire.header(1, 1, 4.99, 4.95)
GOOD = f"{HEAD} k={wire.checksum(HEAD, np.zeros(7), 0.0)}"
NULLS = f"{HEAD} k={wire.checksum(HEAD, np.full(7, np.nan), 0.0)}"
MESSAGES = {
    "no header": ("", None, None, Reason.EPOCH),
    "other protocol": ("rp2 e=1 s=1 t=1 o=1 n=0 c=0", None, None, Reason.EPOCH),
    "header with tail": ("rp1 e=1 s=1 t=1 o=1 n=0 c=0 k=00000000 x", None, None, Reason.EPOCH),
    "no checksum": ("rp1 e=1 s=1 t=1 o=1 n=0 c=0", None, None, Reason.EPOCH),
    "another epoch": (GOOD.replace("e=1", "e=2"), None, None, Reason.DAMAGED),
    "another position": (None, None, [{"positions": [0.0] * 6 + [0.1]}], Reason.DAMAGED),
    "another duration": (None, None, [{"positions": [0.0] * 7, "time_from_start": {"sec": 1}}], Reason.DAMAGED),
    "names": (None, ["a"] * 7, None, Reason.NAMES),
    "two points": (None, None, [{"positions": [0.0] * 7}] * 2, Reason.SHAPE),
    "no point": (None, None, [], Reason.SHAPE),
    "short": (None, None, [{"positions": [0.0] * 6}], Reason.SHAPE),
    "text": (None, None, [{"positions": ["0"] * 7}], Reason.DTYPE),
    "text for all": (None, None, [{"positions": "0000000"}], Reason.DTYPE),
    "null": (NULLS, None, [{"positions": [None] * 7}], Reason.NONE),
    "huge": (None, None, [{"positions": [10**400] * 7}], Reason.NONFINITE),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_bad_message_becomes_a_fault_and_never_an_exception(name):
    frame, joints, points, wanted = MESSAGES[name]
    read = wire.read(
        GOOD if frame is None else frame,
        joints or wire.joint_names("fr3"),
        [{"positions": [0.0] * 7}] if points is None else points,
    )
    assert read.fault == wanted
    assert Bench().guard.receive(read, 5.0) & REFUSED


def test_a_command_survives_the_neighbours_of_its_numbers():
    rng, names = np.random.default_rng(0), wire.joint_names("fr3")
    for number in range(200):
        sent = wire.message(wire.Command(1, number, 1.0, 1.0, target=rng.uniform(-3, 3, 7), duration=1 / 15))
        positions = np.array(sent["points"][0]["positions"])
        for way in (-np.inf, np.inf):
            moved = {**sent["points"][0], "positions": np.nextafter(positions, way).tolist()}
            assert wire.read(sent["header"]["frame_id"], names, [moved]).fault == 0
        changed = {**sent["points"][0], "positions": (positions + 1e-9).tolist()}
        assert wire.read(sent["header"]["frame_id"], names, [changed]).fault == Reason.DAMAGED
