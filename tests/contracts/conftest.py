"""Every preset on disk is enrolled in the contract tests of its group: a new file needs no test edited."""

from pathlib import Path

import pytest
import torch

from robopref.run import compose

CONF = Path(__file__).parents[2] / "conf"


def pytest_generate_tests(metafunc):
    if "preset" in metafunc.fixturenames:
        group = Path(metafunc.module.__file__).stem.removeprefix("test_")
        names = [f"{group}/{path.stem}" for path in sorted((CONF / group).glob("*.yaml"))]
        assert names, f"conf/{group}/ is empty"
        metafunc.parametrize("preset", names, indirect=True)


@pytest.fixture
def preset(request):
    """The resolved configuration of one preset, as plain data."""
    group, name = request.param.split("/")
    torch.manual_seed(0)
    return compose([f"{group}={name}"])[group]
