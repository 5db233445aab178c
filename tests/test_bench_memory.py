"""The memory that the soak counts is that of each process with its children, and what shrinks hides nothing."""

import subprocess
import sys

import pytest
from robopref.benchmarks._hardware_memory import Memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CHILD = """
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", "input(); kept = bytearray(40_000_000); print(1, flush=True); input()"], stdin=sys.stdin)
inner.wait()
"""


def test_a_grandchild_that_grows_is_seen():
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        memory = Memory({"part": child.pid})
        memory.look()
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "1\n"
        memory.look()
        child.communicate("\n")
    assert memory.sizes["part"][1] - memory.sizes["part"][0] > 30
    memory.sizes["agent"] = [100.0, 10.0]
    assert memory.growth > 30
