"""The fault matrix: every cell ends as it was written down in faults.yaml before the first run."""

import pytest
from robopref.hardware.guard import Guard
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


class Forgetful(Guard):
    """Takes commands in whatever order and number they come."""

    def receive(self, command, now):
        self.seq = -1
        return super().receive(command, now)


@pytest.mark.parametrize("fault", ["bridge_duplicated", "bridge_reordered"])
def test_a_guard_that_forgets_the_sequence_is_noticed(fault):
    cell = matrix.run(fault, 0, Forgetful)
    assert cell.during == "RUNNING" and cell.refusals.get("SEQ", 0) == 0
    assert any("SEQ" in problem for problem in matrix.problems(fault, cell, WANTED))
    assert fault != "bridge_duplicated" or cell.repeated > 0


class Unhurried(Guard):
    """Brakes as late as a command may come."""

    def _silent(self, silence):
        return silence > 0.4


def test_a_guard_that_stops_late_is_noticed():
    assert matrix.problems("bridge_killed", matrix.run("bridge_killed", 0, Unhurried), WANTED)


def test_an_agent_that_says_its_observations_are_new_is_noticed():
    world = World("nothing", 0)
    send = world.agent._send
    world.agent._send = lambda reading, step, observed, *rest: send(reading, step, reading.stamp, *rest)
    assert world.run().unseen > 0


def test_answers_of_up_to_four_periods_leave_nothing_idle_and_later_ones_are_never_adopted():
    in_time = [matrix.delayed(steps, 0) for steps in (0, 2, 4)]
    assert all(cell.idle == 0 and cell.commands > 50 and cell.adopted > 5 for cell in in_time)
    assert max(cell.adopted_age for cell in in_time) <= WANTED["adopted_age"]
    assert matrix.delayed(5, 0).adopted == 0


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
