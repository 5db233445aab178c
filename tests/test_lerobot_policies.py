"""lerobot's own policies through our adapters, in lerobot's environment on Python 3.12; the checks are in lerobot_policies.py, lerobot_pi.py."""

import os
from pathlib import Path

import pytest
from separate import TOP, find_python312, lerobot, run

pytestmark = [pytest.mark.separate, pytest.mark.slow]
CHECKED = {
    "lerobot_policies.py": ["equal diffusion2", "equal diffusion1", "equal act", "equal smolvla"],
    "lerobot_pi.py": ["equal pi0", "equal pi05", "equal pi0_fast"],
}


@pytest.fixture(scope="module")
def lerobot_python(request):
    return lerobot(request.config.cache, find_python312())


@pytest.mark.parametrize("script", CHECKED)
def test_adapters_keep_lerobots_actions_and_the_contract(lerobot_python, tmp_path, script):
    scrubbed = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TOP)}
    command = [lerobot_python, str(Path(__file__).with_name(script)), str(tmp_path)]
    told = run(command, cwd=tmp_path, env=scrubbed | offline)
    assert [line for line in told.splitlines() if line.startswith("equal")] == CHECKED[script]
