"""TRL's own trainers give the same pair losses on the same numbers, in an environment of their own that has `trl`."""

import os
import sys

import pytest
from separate import TOP, environment, run

pytestmark = pytest.mark.separate


def test_every_pair_loss_of_trl_equals_ours(request):
    python = environment(
        request.config.cache, sys.executable, "trl", "constraints-trl.txt", ["trl==1.16.0"], beside=True
    )
    told = os.environ | {"PYTHONPATH": str(TOP), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    printed = run([python, str(TOP / "tests/trl_losses.py")], env=told)
    equal = [line for line in printed.splitlines() if line.startswith("equal ")]
    assert len(equal) == 21, printed
