"""The fault matrix: every cell ends as it was written down in faults.yaml before the first run."""

import pytest
from robopref.hardware.testing import matrix

WANTED = matrix.expected()


@pytest.mark.parametrize("fault", WANTED["faults"])
def test_a_fault_ends_as_it_was_written_down(fault):
    assert matrix.problems(fault, matrix.run(fault, 0), WANTED) == []


def test_a_cell_repeats_exactly_and_the_check_notices_another_state():
    one, two = matrix.run("server_killed", 3), matrix.run("server_killed", 3)
    assert one == two
    one.during = "RUNNING"
    assert matrix.problems("server_killed", one, WANTED)


@pytest.mark.slow
@pytest.mark.parametrize("fault", WANTED["faults"])
def test_more_seeds_end_the_same_way(fault):
    assert [p for seed in range(1, 4) for p in matrix.problems(fault, matrix.run(fault, seed), WANTED)] == []
