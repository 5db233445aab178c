"""How tests ask the command: in this process, or timed in one of its own."""

import subprocess
import sys

import pytest

from robopref import cli

COMMAND = [sys.executable, "-m", "robopref.cli"]


def call(capsys, *words):
    """(exit code, output, error output) of the command, in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    out, err = capsys.readouterr()
    return left.value.code, out, err


def processor_time(*words):
    """(least seconds of processor time of several runs without those of its children, what the command printed)."""
    code = (
        "import sys, time\nfrom robopref.cli import main\ntry: main(sys.argv[1:])\n"
        "finally: sys.stdout.flush(), print(time.process_time(), file=sys.stderr)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        for _ in range(4)
    ]
    return min(float(one.stderr.split()[-1]) for one in runs), runs[0].stdout
