"""The fault matrix: every cell ends as it was written down in faults.yaml before the first run."""

import pytest
from robopref.hardware.testing import matrix
from robopref.hardware.testing.world import World

from robopref.arrays import InputError

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


def asked(world, sentence):
    """What a policy that reads was sent."""
    world.policy.metadata["words"] = 8
    world.agent.sentence, messages, ask = sentence, [], world.policy.ask
    world.policy.ask = lambda message: messages.append(message) or ask(message)
    world.over = world.now + 1.5
    world.run()
    return messages


def test_a_policy_that_looks_and_reads_is_sent_both():
    messages = asked(World("frozen_camera_policy_looks", 0), "reach the green ball")
    assert messages and {message["prompt"] for message in messages} == {"reach the green ball"}
    assert {message["images"]["camera"].shape for message in messages} == {(1, 16, 16, 3)}


def test_a_policy_that_reads_is_not_run_without_a_sentence():
    with pytest.raises(InputError, match="sentence"):
        asked(World("clock_step", 0), "")


def test_a_policy_that_does_not_look_is_sent_no_picture():
    world = World("clock_step", 0)
    messages = asked(world, "reach")
    assert messages and all("images" not in message for message in messages)
