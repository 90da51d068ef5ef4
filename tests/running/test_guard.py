"""What is not finite: skipped, stopped or gone back from; and never in a file."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from rlweights.errors import TrainingStopped, guarded
from rlweights.learning.batch import Episodes
from rlweights.running import guard, session
from rlweights.running.config import schema
from rlweights.running.guard import MAX_ROLLBACKS, Guard, NotFinite
from rlweights.running.records.console import Console
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving.run_state import RunState
from support.faulty import GLITCHY, GlitchyEnv
from support.simulated import (
    STEPS,
    Machine,
    Mortal,
    all_finite,
    assert_same_result,
    newest,
    result,
    steps_saved,
)

FAULTY = f"{Path(__file__).parents[1] / 'support' / 'faulty.py'}:Glitchy"
ALOOF = {"evaluation": {"every": 0}}
"""Evaluations make steps, and would take their share of the planned glitches."""


@functools.cache
def machine(backend: str) -> Machine:
    return Machine(backend, environment={"id": GLITCHY if backend == "gymnasium" else FAULTY}, **ALOOF)


@pytest.fixture(params=["gymnasium", "tensorflow"])
def glitchy(request):
    """A machine, and what plans its glitches: the iteration from which, or in which alone, they come."""
    computer = machine(request.param)
    environment = GlitchyEnv if request.param == "gymnasium" else computer.assembly.environments.tensorflow

    def plan(iteration: int, what: str = "reward", lasting: bool = False) -> None:
        # Both environments count in Gymnasium, vector steps elsewhere.
        size = STEPS if environment is GlitchyEnv else STEPS // 2
        environment.plan(what, [iteration * size + 7], lasting)

    yield computer, plan
    environment.plan()


# Skipped ------------------------------------------------------------------------------------------


# The third iteration's observations are those on which hidden units are measured from then on.
@pytest.mark.parametrize(("what", "iteration"), [("reward", 5), ("observation", 5), ("observation", 2)])
def test_a_glitch_costs_one_update(glitchy, tmp_path, what, iteration):
    computer, plan = glitchy
    folder = computer.folder(tmp_path)
    plan(iteration, what)
    outcome = computer.train(folder)
    assert outcome.evaluation is not None
    series = read_scalars(folder)
    skipped = {step // STEPS: value for step, value in series["update/skipped"] if value}
    assert list(skipped) == [iteration + 1]
    assert dict(series[f"update/nonfinite_{what}s"])[(iteration + 1) * STEPS] > 0
    assert all_finite(folder)
    assert [step // STEPS for step in steps_saved(folder)] == [8, 12, 14]


def test_what_was_skipped_is_traced_to_its_environment(tmp_path, monkeypatch):
    computer, reasons = machine("gymnasium"), []
    monkeypatch.setattr(Console, "note_reason", lambda self, reason: reasons.append(reason))
    GlitchyEnv.plan("reward", [5])
    computer.train(computer.folder(tmp_path))
    GlitchyEnv.plan()
    (reason,) = reasons
    assert re.fullmatch(r"\S+: environment \d of \d returned the reward nan in step \d+ of a rollout", reason)


def test_an_evaluation_that_is_not_finite_is_never_the_best(tmp_path):
    computer = machine("gymnasium")
    GlitchyEnv.plan("reward", [1], lasting=True)
    folder = computer.folder(tmp_path)
    computer.train(folder, guard={"patience": 10**6})
    GlitchyEnv.plan()
    assert not (folder / "best").exists()
    assert newest(folder)[2]["best"] == [None, 0]
    assert "eval/mean_reward" not in read_scalars(folder)


# Stopped ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_streak_stops_the_run_and_is_traced_to_its_beginning(glitchy, tmp_path, capsys, what):
    computer, plan = glitchy
    folder = computer.folder(tmp_path)
    plan(9, what, lasting=True)
    code = guarded(lambda: session.exit_code(computer.train(folder, guard={"patience": 12})))
    assert code == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{folder}: not finite at step {12 * STEPS}: " in error  # four optimizer steps an iteration
    if computer is machine("gymnasium"):
        assert f"returned the {what}" in error
    else:
        assert f"the {what}s" in error
    assert "(the last good checkpoint: step 128)" in error
    assert [step // STEPS for step in steps_saved(folder)] == [4, 8]
    assert all_finite(folder)
    assert (folder / "latest" / "weights.safetensors").exists()


def test_stop_stops_at_the_first(glitchy, tmp_path):
    computer, plan = glitchy
    folder = computer.folder(tmp_path)
    plan(9)
    with pytest.raises(TrainingStopped, match=f"not finite at step {10 * STEPS}: .*reward"):
        computer.train(folder, guard={"on_nonfinite": "stop"})
    assert [step // STEPS for step in steps_saved(folder)] == [4, 8]


def test_a_streak_is_seen_however_many_iterations_one_call_makes(tmp_path, monkeypatch):
    """A streak that is long enough, and over before the call returns."""
    computer = machine("tensorflow")
    computer.assembly.environments.tensorflow.plan("reward", range(9 * STEPS // 2, 10 * STEPS // 2))
    advance, steps = computer.loop.advance, []
    for count in (1, 64):

        def forced(iteration, limit, count=count):
            computer.loop._count = count
            return advance(iteration, limit)

        monkeypatch.setattr(computer.loop, "advance", forced)
        with pytest.raises(TrainingStopped, match="the rewards") as error:
            computer.train(
                computer.folder(tmp_path),
                guard={"patience": 4},
                logging={"diagnostics_every": 0, "histograms_every": 0},
            )
        steps.append(str(error.value).partition("not finite at step ")[2].partition(":")[0])
    computer.assembly.environments.tensorflow.plan()
    assert steps == [str(10 * STEPS)] * 2


def test_after_a_stop_the_run_can_be_resumed_with_another_guard(glitchy, tmp_path):
    computer, plan = glitchy
    folder = computer.folder(tmp_path)
    plan(9)
    with pytest.raises(TrainingStopped):
        computer.train(folder, guard={"on_nonfinite": "stop"})
    plan(99)
    computer.train(folder, resume=True, guard={"on_nonfinite": "skip"})
    assert newest(folder)[2]["finished"]
    steps = [step for step, _ in read_scalars(folder)["train/loss"]]
    assert steps == [STEPS * i for i in range(1, 15)]


# Gone back ----------------------------------------------------------------------------------------


def test_a_glitch_is_gone_back_from(tmp_path):
    computer, said = machine("gymnasium"), []
    folder = computer.folder(tmp_path)
    GlitchyEnv.plan("reward", [9 * STEPS + 5])
    computer.train(folder, said=said, guard={"on_nonfinite": "rollback"})
    GlitchyEnv.plan()
    (line,) = [each for each in said if "alarm: " not in each]
    assert line.startswith(
        f"not finite at step {10 * STEPS}: {GLITCHY}: environment 0 of 2 returned the reward"
    )
    assert line.endswith(f"; back to step {8 * STEPS}, attempt 1")
    assert newest(folder)[2]["attempt"] == 1
    rows = (folder / "progress.csv").read_text().splitlines()[1:]
    assert [int(row.partition(",")[0]) for row in rows] == [STEPS * i for i in range(15)]
    series = read_scalars(folder)
    assert [step for step, _ in series["train/loss"]] == [STEPS * i for i in range(1, 15)]
    assert not any(value for _, value in series["update/skipped"])
    assert all_finite(folder)


def test_another_attempt_draws_other_numbers_and_passes(tmp_path):
    """In an environment whose glitches are drawn; killed on the way it ends alike."""
    computer, ended = machine("tensorflow"), []
    computer.assembly.environments.tensorflow.plan(chance=0.006)
    settings = {"guard": {"on_nonfinite": "rollback"}, "evaluation": {"every": 3 * STEPS}}
    for at in (None, 60, 95):
        folder, said, life = computer.folder(tmp_path), [], Mortal(computer, at)
        with life.living():
            computer.train(folder, said=said, **settings)
        if at is not None:
            assert life.dead
            computer.train(folder, resume=True, said=said, **settings)
        ended.append(result(folder))
        assert all_finite(folder)
    computer.assembly.environments.tensorflow.plan()
    assert ended[0]["progress"]["attempt"] > 0, "no glitch was drawn: this shows nothing"
    assert_same_result(ended[0], ended[1])
    assert_same_result(ended[0], ended[2])


def test_going_back_takes_back_the_best_weights(tmp_path, monkeypatch):
    computer = machine("gymnasium")
    folder = computer.folder(tmp_path)
    best = folder / "best" / "weights.safetensors"
    settings = {"guard": {"on_nonfinite": "rollback"}, "evaluation": {"every": 2 * STEPS, "episodes": 1}}
    seen = []

    def looking(self, say):
        before = best.read_bytes()
        found = restore(self, say)
        assert found is not None
        seen.append((before, found[0].best.env_steps))
        return found

    def planned(iteration, limit):
        if iteration == 6 and not seen:
            GlitchyEnv.plan("reward", [5])
        if iteration == 4 and seen:
            seen.append((best.read_bytes(), None))
        return advance(iteration, limit)

    restore, advance = RunState.restore, computer.loop.advance
    monkeypatch.setattr(RunState, "restore", looking)
    monkeypatch.setattr(computer.loop, "advance", planned)
    monkeypatch.setattr(guard, "MAX_ROLLBACKS", 1)
    monkeypatch.setattr("rlweights.running.saving.run_state.Best.beaten_by", lambda self, mean: True)
    computer.train(folder, **settings)
    GlitchyEnv.plan()
    (beyond, step), (after, _) = seen
    assert step == 4 * STEPS
    assert beyond != after, "the weights of an evaluation that never was"


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_attempts_are_bounded(glitchy, tmp_path, what):
    computer, plan = glitchy
    folder, said = computer.folder(tmp_path), []
    plan(9, what, lasting=True)
    with pytest.raises(TrainingStopped, match=what):
        computer.train(folder, said=said, guard={"on_nonfinite": "rollback"})
    assert [line.partition("; ")[2] for line in said] == [
        f"back to step {8 * STEPS}, attempt {i}" for i in range(1, MAX_ROLLBACKS + 1)
    ]
    assert [step // STEPS for step in steps_saved(folder)] == [4, 8]
    assert all_finite(folder)


def test_without_a_checkpoint_the_way_back_leads_to_the_beginning(glitchy, tmp_path):
    computer, plan = glitchy
    folder, said = computer.folder(tmp_path), []
    plan(1, lasting=computer is machine("tensorflow"))
    rollback = {"guard": {"on_nonfinite": "rollback"}}
    if computer is machine("tensorflow"):  # a function of the time: every attempt meets it
        with pytest.raises(TrainingStopped, match=r"not finite at step 32: .*\(no checkpoint yet\)"):
            computer.train(folder, said=said, **rollback)
    else:
        computer.train(folder, said=said, **rollback)
        assert [step for step, _ in read_scalars(folder)["train/loss"]] == [STEPS * i for i in range(1, 15)]
    assert said[0].endswith("; back to step 0, attempt 1")


# Weights and other state --------------------------------------------------------------------------

EXPLODING = """
import tensorflow as tf
from rlweights import Intervention


class Exploding(Intervention):
    placement = "{placement}"

    def update(self, weight, step):
        return tf.where(step >= 37, float("inf"), weight)
"""


@pytest.mark.parametrize(
    ("placement", "iteration"),
    [("after_step", 10), ("after_iteration", 10)],  # the tenth iteration's steps are 36 to 39
)
def test_a_rule_that_ruins_the_weights_stops_the_run(tmp_path, placement, iteration):
    rule = tmp_path / f"{placement}.py"
    rule.write_text(EXPLODING.format(placement=placement))
    computer = Machine(interventions=[{"rule": f"{rule}:Exploding"}])
    (tmp_path / "runs").mkdir()
    folder = computer.folder(tmp_path / "runs")
    with pytest.raises(TrainingStopped, match=f"not finite at step {iteration * STEPS}: the weights "):
        computer.train(folder, guard={"patience": 10**6})
    assert [step // STEPS for step in steps_saved(folder)] == [4, 8]
    assert all_finite(folder)
    assert not (folder / "latest" / "weights.safetensors").exists()


def test_state_that_is_not_finite_is_no_checkpoint(tmp_path, monkeypatch):
    """A slot of the optimizer goes bad after the last update before a checkpoint."""
    computer = machine("gymnasium")
    folder, said, advance, spoiled = computer.folder(tmp_path), [], computer.loop.advance, []

    def spoiling(iteration, limit):
        rows = advance(iteration, limit)
        if iteration == 7 and not spoiled:
            slot = next(v for v in computer.assembly.optimizer.inner.variables if len(v.shape) == 2)
            slot.assign(np.full(slot.shape, np.nan))
            spoiled.append(slot.path)
        return rows

    monkeypatch.setattr(computer.loop, "advance", spoiling)
    computer.train(folder, said=said, guard={"on_nonfinite": "rollback"})
    assert said == [f"not finite at step 128: {spoiled[0]}; back to step 64, attempt 1"]
    assert [step // STEPS for step in steps_saved(folder)] == [8, 12, 14]
    assert all_finite(folder)
    spoiled.clear()
    folder = computer.folder(tmp_path)
    with pytest.raises(TrainingStopped, match=f"at step 128: {spoiled or '.*'}"):
        computer.train(folder)
    assert [step // STEPS for step in steps_saved(folder)] == [4]


def test_what_was_not_measured_yet_is_saved_as_that(tmp_path):
    computer = machine("gymnasium")
    folder = computer.folder(tmp_path)
    computer.train(folder)
    snapshots = RunState(folder, computer.assembly.agent, computer.assembly.learner, computer.loop)
    restored = snapshots.restore(print)
    assert restored is not None
    distance = computer.assembly.optimizer.feedback["policy_distance"]
    distance.assign(float("nan"))
    snapshots.save(restored.progress, restored.probe, step=10**6)
    distance.assign(1.0)
    snapshots.restore(print)
    assert np.isnan(distance.numpy())
    assert all_finite(folder)


# The decision -------------------------------------------------------------------------------------


def judged(judge: Guard, streak=0, reason=None, **bad: float) -> str | None:
    """What a guard says to an iteration with a streak and some bad counts."""
    scalars = {f"update/nonfinite_{name}": bad.get(name, 0.0) for name in guard.QUANTITIES}
    scalars |= {"update/skipped": float(sum(bad.values())), "update/nonfinite_streak": float(streak)}
    try:
        judge.judge(scalars, Episodes(nonfinite=reason))
    except NotFinite as error:
        return str(error)
    return None


def test_the_first_bad_quantity_of_a_streak_is_named():
    judge = Guard(schema.GuardSection(patience=6))
    assert judged(judge, 2, loss=2) is None
    assert judged(judge, 0) is None, "a good iteration"
    assert judged(judge, 2, gradients=2, loss=1) is None
    assert judged(judge, 4, "the dog ate it", rewards=3, loss=2) is None
    assert judged(judge, 6, rewards=3) == "the loss"
    judge = Guard(schema.GuardSection(patience=6))
    assert judged(judge, 0, loss=2) is None, "over within its iteration"
    assert judged(judge, 9, "the dog ate it", observations=1, loss=2) == "the dog ate it"


def test_weights_that_are_not_finite_do_not_wait():
    assert judged(Guard(schema.GuardSection(patience=10**6)), weights=1) == "the weights"


def test_every_checkpoint_brings_new_attempts():
    judge = Guard(schema.GuardSection(on_nonfinite="rollback"))
    for _ in range(3):
        assert [judge.may_go_back() for _ in range(MAX_ROLLBACKS + 1)] == [True] * MAX_ROLLBACKS + [False]
        judge.passed()
    assert not Guard(schema.GuardSection(on_nonfinite="stop")).may_go_back()


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (500.0, "the loss"),
        (5e40, "the loss, of rewards that are 1e+38 a step: scale them, "),
    ],
)
def test_rewards_whose_squares_are_not_finite_are_named(total, said):
    scalars = {f"update/nonfinite_{name}": float(name == "loss") for name in guard.QUANTITIES}
    scalars |= {"update/skipped": 1.0, "update/nonfinite_streak": 1.0}
    with pytest.raises(NotFinite) as error:
        Guard(schema.GuardSection(on_nonfinite="stop")).judge(scalars, Episodes(1, total, 500))
    assert str(error.value).startswith(said)
    assert ("scale" in str(error.value)) is ("scale" in said)
