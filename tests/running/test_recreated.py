"""Environments that raise and are made anew: counted, and exact when the run is killed."""

import pytest

from rlweights.running.records.event_file import read_scalars
from support.faulty import FRAIL
from support.simulated import Machine, Mortal, assert_same_result, result


def fresh(computer: Machine) -> None:
    """What a process begins with: nothing has been made anew in it."""
    computer.loop.envs.set_attr("_recreated", 0)  # pyright: ignore[reportAttributeAccessIssue]
    computer.loop.rollout._recreated[:] = 0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.fixture(scope="module")
def frail(tmp_path_factory):
    """A machine whose environments break, what an uninterrupted run of it left, and what it said."""
    section = {"id": FRAIL, "on_error": "recreate", "max_recreations": 10_000}
    computer = Machine(environment=section, checkpoint={"every": 16})
    folder, said = computer.folder(tmp_path_factory.mktemp("whole")), []
    computer.train(folder, said=said)
    return computer, folder, said


def test_what_was_made_anew_is_counted_and_said(frail):
    _, folder, said = frail
    told = [line for line in said if "the environment was made anew" in line]
    counts = [count for _, count in read_scalars(folder)["environment/recreated"]]
    assert counts == sorted(counts)
    assert counts[-1] >= len(told) > 15  # of resets that fail in a row, the last one is said
    for method in ("reset", "step"):
        assert any(f"Frail-v0: {method}() of environment" in line for line in told)


@pytest.mark.parametrize("at", [2, 5, 9, 13])
def test_a_run_that_is_killed_after_an_environment_was_made_anew_goes_on_exactly(frail, tmp_path, at):
    computer, whole, _ = frail
    folder = computer.folder(tmp_path)
    fresh(computer)
    with Mortal(computer, ("iterations", at), after=True).living():
        computer.train(folder)
    fresh(computer)
    computer.train(folder, resume=True)
    assert_same_result(result(folder), result(whole))
