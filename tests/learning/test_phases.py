"""What is measured of the phases of a changing task: by hand, and in the loops that report them."""

import json
import math

import numpy as np

from rlweights.learning.batch import Episodes
from rlweights.learning.phases import PHASE_WINDOW, PhaseMeter

STEPS = 100
"""Environment steps of an iteration."""


class Run:
    """Feeds a meter iteration by iteration: {phase: returns of the episodes that ended}."""

    def __init__(self, solved_return=None):
        self.meter, self.steps, self.solved_return = PhaseMeter(), 0, solved_return

    def add(self, oldest, newest, **ended):
        phases = {int(name[1:]): (len(each), float(sum(each))) for name, each in ended.items()}
        episodes = Episodes(phases=phases, running_phases=(oldest, newest))
        before, self.steps = self.steps, self.steps + STEPS
        # Through JSON every time, as a run that is killed and resumed after each iteration.
        self.meter = PhaseMeter.of(json.loads(json.dumps(self.meter.state())))
        found = self.meter.add(episodes, before, self.steps, self.solved_return)
        return {tag.removeprefix("rollout/phase/"): value for tag, value in found.items()}


def test_a_phase_is_closed_when_none_of_its_episodes_runs():
    run = Run()
    assert run.add(0, 0, p0=[1.0] * 20) == {}
    assert run.add(0, 1, p0=[3.0] * 10) == {}  # the next phase has begun, and this one still runs
    assert run.add(0, 1, p0=[5.0], p1=[7.0]) == {}
    closed = run.add(1, 1, p1=[9.0])
    end = (20 * 1 + 10 * 3 + 5) / 31  # the newest iterations that hold 20 episodes
    assert closed == {
        "number": 0.0,
        "end_return": end,
        "best_return": end,
        "mean_return": end,
    }
    assert run.add(1, 1) == {}
    assert run.add(2, 2)["mean_return"] == 8.0


def test_end_and_best_are_means_of_a_window_and_the_mean_is_of_all():
    run = Run()
    for value in (1.0, 50.0, 10.0):
        run.add(0, 0, p0=[value] * PHASE_WINDOW)
    closed = run.add(1, 1)
    assert (closed["end_return"], closed["best_return"]) == (10.0, 50.0)
    assert closed["mean_return"] == 61.0 / 3


def test_before_the_window_is_full_nothing_is_a_best():
    run = Run()
    run.add(0, 0, p0=[1000.0])  # one lucky episode
    run.add(0, 0, p0=[0.0] * 19)
    run.add(0, 0, p0=[0.0] * 20)
    assert run.add(1, 1)["best_return"] == 1000.0 / 20


def test_steps_until_solved_count_from_the_beginning_of_the_phase():
    run = Run(solved_return=5.0)
    run.add(0, 0, p0=[9.0] * 19)  # too few to tell
    run.add(0, 0, p0=[9.0])
    first = run.add(1, 1, p0=[9.0])
    assert (first["solved"], first["solved_share"], first["steps_until_solved"]) == (1.0, 1.0, 2 * STEPS)
    run.add(1, 1, p1=[4.0] * 20)
    second = run.add(2, 2)
    assert (second["solved"], second["solved_share"]) == (0.0, 0.5)
    assert "steps_until_solved" not in second
    run.add(2, 2, p2=[6.0] * 20)
    third = run.add(3, 3)
    # Phase 2 began in the iteration before: steps 400 to 500.
    assert (third["solved_share"], third["steps_until_solved"]) == (2 / 3, 2 * STEPS)


def test_episodes_that_outlive_a_whole_phase_do_not_count():
    run = Run()
    run.add(0, 0, p0=[1.0] * 20)
    run.add(1, 1)
    assert run.add(1, 1, p0=[1e9]) == {}
    assert "mean_return" not in run.add(2, 2)


def test_a_phase_without_episodes_has_only_a_number():
    run = Run(solved_return=1.0)
    run.add(0, 0)
    assert run.add(1, 1) == {"number": 0.0, "solved": 0.0, "solved_share": 0.0}


def test_of_several_closed_at_once_the_newest_is_told_and_all_are_counted():
    run = Run(solved_return=1.0)
    run.add(0, 2, p0=[2.0] * 20, p1=[3.0] * 20)
    closed = run.add(2, 2)
    assert (closed["number"], closed["mean_return"], closed["solved_share"]) == (1.0, 3.0, 1.0)
    assert run.meter.closed == 2


def test_returns_that_are_not_finite_do_not_count():
    run = Run()
    run.add(0, 0, p0=[1.0] * 20)
    run.add(0, 0, p0=[math.inf])
    run.add(0, 0, p0=[math.nan])
    assert run.add(1, 1)["end_return"] == 1.0


def test_where_tasks_do_not_change_nothing_is_measured():
    meter = PhaseMeter()
    assert meter.add(Episodes(3, 1.0, 2), 0, 100) == {}
    assert meter == PhaseMeter()


def test_numbers_survive_json_exactly():
    run, values = Run(), np.random.default_rng(0).normal(size=40)
    run.add(0, 0, p0=values.tolist())
    assert run.add(1, 1)["mean_return"] == float(sum(values.tolist())) / 40
