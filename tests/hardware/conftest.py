"""The real peers, built once and started per module inside a network of their own; they fail where they are promised."""

import os

import pytest
from robopref.hardware.testing import processes
from robopref.hardware.testing.environments import build, locate
from robopref.hardware.testing.network import own_network

from robopref.arrays import InputError


@pytest.fixture(scope="session")
def environments():
    """ROS 2 with its bridge, and the simulator. Built where ROBOPREF_REQUIRE_HARDWARE says that they must be there."""
    if os.environ.get("ROBOPREF_REQUIRE_HARDWARE"):
        return build()
    if not locate().ready:
        pytest.skip(
            "needs the peers: python -m robopref.hardware.testing.environments (or ROBOPREF_REQUIRE_HARDWARE=1)"
        )
    return build()


@pytest.fixture(scope="module")
def private_network():
    with own_network() as private:
        yield private


@pytest.fixture(scope="module")
def simulator(environments, private_network, tmp_path_factory):
    """The running simulator of the arm."""
    with processes.simulator(environments, tmp_path_factory.mktemp("simulator")) as process:
        try:
            process.wait_for_port(processes.FCI_PORT)
        except InputError as error:
            pytest.fail(str(error))
        yield process
