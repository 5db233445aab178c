"""A recorder in a process of its own, killed at random moments: were episodes lost that had been finished?"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

_CHILD = """
import sys
from pathlib import Path
import numpy as np
from robopref.hardware.recorder import Recorder
recorder, number = Recorder(Path(sys.argv[1])), 0
while True:
    recorder.begin(task="reach", seed=number)
    for step in range(20):
        recorder._queue.put({"row": "step", "number": step, "action": np.zeros(7), "picture": b"x" * 5000})
    recorder._open = False
    recorder._queue.put({"row": "end", "success": True})
    number += 1
    while recorder.episodes < number:
        pass
    print(number, flush=True)
"""


def lost_episodes(kills: int) -> int:
    """Episodes that the recorder had called finished and that cannot be read after SIGKILL, over all kills."""
    from robopref.hardware.recorder import FINISHED, read

    rng, lost = np.random.default_rng(0), 0
    for _ in range(kills):
        with TemporaryDirectory() as folder:
            child = subprocess.Popen([sys.executable, "-c", _CHILD, folder], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            first = child.stdout.readline()
            time.sleep(float(rng.uniform(0.0, 0.3)))
            child.send_signal(signal.SIGKILL)
            said = [first, *child.stdout.read().splitlines()]
            child.wait()
            child.stdout.close()
            finished = int([line for line in said if line.strip()][-1])
            whole = [list(read(path)) for path in sorted(Path(folder).glob(f"*{FINISHED}"))]
            good = sum(len(rows) == 22 and rows[-1]["row"] == "end" for rows in whole)
            lost += max(0, finished - good)
    return lost
