"""Callbacks: what they see, what they may do, and that none of it is lost or doubled by a kill."""

import functools
import json

import numpy as np
import pytest

import rlweights as rw
from rlweights.errors import CallbackError, ConfigError
from rlweights.running import session
from rlweights.running.callbacks import Callback, StopAtReturn
from rlweights.running.guard import NotFinite
from rlweights.running.records.event_file import read_scalars
from support.recorded import rows_of
from support.simulated import STEPS, Machine, Mortal, assert_same_result, newest, result

KINDS = ("vector", "sync", "async", "tensorflow")


@functools.cache
def machine(kind: str) -> Machine:
    if kind == "tensorflow":
        return Machine("tensorflow", logging={"every": 3 * STEPS})
    mode = "vector_entry_point" if kind == "vector" else kind
    return Machine(environment={"vectorization_mode": mode}, network={"hidden_sizes": [3]})


@pytest.fixture(scope="module", autouse=True)
def closed():
    yield
    machine("async").loop.close()


class Curriculum(Callback):
    """Keeps no state: the push grows with the iteration."""

    def on_train_begin(self):
        self.training.set_environment(force_mag=4.0)

    def on_iteration_end(self, iteration, logs):
        if iteration % 2 == 0:
            self.training.set_environment(force_mag=4.0 + iteration)
        self.training.record({"curriculum/force_mag": self.training.parameters["force_mag"]})
        self.training.optimizer.feedback["progress"] = 0.5


class Counting(Callback):
    """Keeps a state: what it does depends on all that it has seen."""

    def on_train_begin(self):
        self.seen, self.total, self.evaluations = [], 0.0, 0

    def on_iteration_end(self, iteration, logs):
        self.seen.append(iteration)
        self.total += logs["train/loss"]
        if len(self.seen) == 5:
            self.training.set_environment(gravity=11.0, length=0.4)
        self.training.record({"counting/total": self.total, "counting/seen": len(self.seen)})

    def on_evaluation_end(self, logs):
        self.evaluations += 1
        self.training.record({"counting/evaluations": self.evaluations, "counting/total": 2.0 * self.total})

    def state(self):
        return {"seen": self.seen, "total": self.total, "evaluations": self.evaluations}

    def restore(self, state):
        self.seen, self.total, self.evaluations = state["seen"], state["total"], state["evaluations"]


def both() -> list[Callback]:
    return [Curriculum(), Counting()]


@functools.cache
def whole(kind: str, folder) -> tuple[dict, int]:
    """The result of a run with callbacks that was not killed, and how many deeds it did."""
    computer = machine(kind)
    life, run = Mortal(computer), computer.folder(folder)
    with life.living():
        computer.train(run, callbacks=both())
    return result(run), len(life.deeds)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("callbacks")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_resumed_is_uninterrupted(kind, shared, tmp_path):
    expected, deeds = whole(kind, shared)
    rng = np.random.default_rng(KINDS.index(kind))
    for deaths in (rng.integers(deeds // 3, deeds, 2), rng.integers(1, deeds, 2), [deeds - 1]):
        computer = machine(kind)
        run, resume = computer.folder(tmp_path), False
        for at in deaths:
            with Mortal(computer, int(at)).living():
                computer.train(run, resume, callbacks=both())
            resume = True
        computer.train(run, True, callbacks=both())
        assert_same_result(result(run), expected)


def test_a_run_with_parameters_is_another_run(shared, tmp_path):
    expected, _ = whole("sync", shared)
    run = machine("sync").folder(tmp_path)
    machine("sync").train(run, callbacks=[Counting()])
    assert result(run)["progress.csv"] != expected["progress.csv"]


@pytest.mark.parametrize("kind", ["vector", "tensorflow"])
def test_every_iteration_is_seen_once_and_recorded_once(kind, tmp_path):
    computer, counting = machine(kind), Counting()
    run = computer.folder(tmp_path)
    computer.train(run, callbacks=[counting])
    assert counting.seen == list(range(1, 15))
    series = read_scalars(run)
    assert series["counting/seen"] == [(i * STEPS, i) for i in range(1, 15)]
    assert [step for step, _ in series["counting/total"]] == [i * STEPS for i in range(1, 15)]
    rows = {int(row["env_steps"]): row for row in rows_of(run)}
    evaluations = {step: row["counting/evaluations"] for step, row in rows.items() if row["eval/mean_reward"]}
    assert list(map(float, evaluations.values())) == list(range(1, counting.evaluations + 1))
    _, _, metadata = newest(run)
    assert metadata["callbacks"]["states"] == [counting.state()]
    assert metadata["callbacks"]["parameters"] == {"gravity": 11.0, "length": 0.4}


def test_callbacks_that_do_nothing_change_nothing(tmp_path):
    class Looking(Callback):
        def on_iteration_end(self, iteration, logs):
            logs.clear()

    runs = []
    for callbacks in ([], [Looking()]):
        for kind in ("vector", "tensorflow"):
            run = machine(kind).folder(tmp_path)
            machine(kind).train(run, callbacks=callbacks)
            found = result(run)
            found["progress"].pop("callbacks", None)
            runs.append(found)
    assert_same_result(runs[0], runs[2])
    assert_same_result(runs[1], runs[3])


# Stopping -----------------------------------------------------------------------------------------


class StopAt(Callback):
    def __init__(self, hook, count):
        self.hook, self.count = hook, count

    def on_iteration_end(self, iteration, logs):
        if self.hook == "iteration" and iteration == self.count:
            self.training.stop("enough")

    def on_evaluation_end(self, logs):
        if self.hook == "evaluation" and self.training.iteration >= self.count:
            self.training.stop()


@pytest.mark.parametrize("kind", ["vector", "tensorflow"])
@pytest.mark.parametrize(
    ("hook", "count", "says"), [("iteration", 5, "StopAt: enough"), ("evaluation", 6, "StopAt")]
)
def test_a_stop_ends_in_good_order_and_stays(kind, hook, count, says, tmp_path):
    computer, callback = machine(kind), StopAt(hook, count)
    run = computer.folder(tmp_path)
    outcome = computer.train(run, callbacks=[callback])
    # The compiled program comes back at the next multiple of `logging.every`, three iterations.
    ends = 6 * STEPS if kind == "tensorflow" or hook == "evaluation" else 5 * STEPS
    assert (outcome.stopped, outcome.env_steps) == (says, ends)
    assert outcome.evaluation is not None
    assert len(outcome.evaluation.returns) == 3
    assert newest(run)[0] == ends
    assert (run / "latest" / "weights.safetensors").exists()
    evaluated = read_scalars(run)["eval/mean_reward"]
    assert len(dict(evaluated)) == len(evaluated)
    before = result(run)
    again = computer.train(run, True, callbacks=[callback])
    assert (again.stopped, again.evaluation) == (says, None)
    assert_same_result(result(run), before)


@pytest.mark.parametrize("hook", ["iteration", "evaluation"])
def test_a_stop_survives_every_death(hook, tmp_path):
    computer, callback = machine("vector"), StopAt(hook, 6)
    run, life = computer.folder(tmp_path), Mortal(machine("vector"))
    with life.living():
        computer.train(run, callbacks=[callback])
    expected, deeds = result(run), len(life.deeds)
    for at in range(deeds - 40, deeds, 3):
        run = computer.folder(tmp_path)
        with Mortal(computer, at).living():
            computer.train(run, callbacks=[callback])
        computer.train(run, True, callbacks=[callback])
        assert_same_result(result(run), expected)


def test_a_stopped_run_goes_on_with_a_larger_budget(tmp_path):
    computer, callback = machine("vector"), StopAt("iteration", 4)
    run = computer.folder(tmp_path)
    computer.train(run, callbacks=[callback])
    more = {"budget": {"total_timesteps": 20 * STEPS}}
    outcome = computer.train(run, True, callbacks=[callback], **more)
    assert (outcome.stopped, outcome.env_steps) == ("", 20 * STEPS)


@pytest.mark.parametrize("of", ["evaluation", "training"])
def test_stop_at_a_return(of, tmp_path):
    computer = machine("vector")
    run = computer.folder(tmp_path)
    outcome = computer.train(run, callbacks=[StopAtReturn(1.0, of)])
    assert outcome.env_steps < 14 * STEPS
    assert outcome.stopped.startswith("StopAtReturn: mean return ")
    assert outcome.stopped.endswith(f"in {of}, 1 is enough")
    unreached = computer.train(computer.folder(tmp_path), callbacks=[StopAtReturn(1e9, of)])
    assert (unreached.stopped, unreached.env_steps) == ("", 14 * STEPS)


# Mistakes -----------------------------------------------------------------------------------------


class Mistaken(Callback):
    def __init__(self, hook, act):
        self.hook, self.act = hook, act

    def _do(self, hook):
        if hook == self.hook:
            self.act(self.training)

    def on_train_begin(self):
        self._do("on_train_begin")

    def on_iteration_end(self, iteration, logs):
        self._do("on_iteration_end")

    def on_evaluation_end(self, logs):
        self._do("on_evaluation_end")

    def on_checkpoint(self, path):
        assert path.is_file()
        self._do("on_checkpoint")

    def on_train_end(self):
        self._do("on_train_end")


HOOKS = ("on_train_begin", "on_iteration_end", "on_evaluation_end", "on_checkpoint", "on_train_end")


@pytest.mark.parametrize("hook", HOOKS)
def test_an_error_names_class_method_and_line(hook, tmp_path):
    def fail(training):
        raise ZeroDivisionError("by me")

    computer = machine("vector")
    run = computer.folder(tmp_path)
    with pytest.raises(CallbackError) as caught:
        computer.train(run, callbacks=[Mistaken(hook, fail)])
    text = str(caught.value)
    assert caught.value.exit_code == 3
    assert text.startswith(
        f"Mistaken.{hook} raised ZeroDivisionError: by me (test_running_callbacks.py, line "
    )
    assert 'raise ZeroDivisionError("by me")' in text
    assert text.endswith(f"The whole traceback: {run / 'error.txt'}")
    assert "Traceback" in (run / "error.txt").read_text()


@pytest.mark.parametrize(
    ("kind", "hook", "act", "says"),
    [
        ("vector", "on_checkpoint", lambda t: t.stop(), "training.stop is for on_iteration_end, on_eval"),
        ("vector", "on_train_end", lambda t: t.record({"a/b": 1}), "training.record is for on_iteration_end"),
        (
            "vector",
            "on_train_begin",
            lambda t: t.record({"a/b": 1}),
            "training.record is for on_iteration_end",
        ),
        (
            "vector",
            "on_checkpoint",
            lambda t: t.set_environment(length=1.0),
            "training.set_environment is for",
        ),
        ("vector", "on_iteration_end", lambda t: t.record({"train/mine": 1}), "takes a group of your own"),
        ("vector", "on_iteration_end", lambda t: t.record({"mine": 1}), "takes a group of your own"),
        ("vector", "on_iteration_end", lambda t: t.record({"a/b": "x"}), "ValueError: could not convert"),
        ("vector", "on_train_begin", lambda t: t.set_environment(lenght=1.0), "has no attribute 'lenght'"),
        (
            "vector",
            "on_train_begin",
            lambda t: t.set_environment(num_envs=1),
            "'num_envs' of CartPole-v1 is no",
        ),
        ("vector", "on_train_begin", lambda t: t.set_environment(prev_done=1.0), "is a ndarray, and no"),
        ("vector", "on_train_begin", lambda t: t.set_environment(length={}), "takes a number, a string"),
        ("vector", "on_train_begin", lambda t: t.set_environment(length=np.nan), "takes a number, a string"),
        ("sync", "on_train_begin", lambda t: t.set_environment(lenght=1.0), "has no attribute 'lenght'"),
        ("async", "on_train_begin", lambda t: t.set_environment(lenght=1.0), "has no attribute 'lenght'"),
        (
            "sync",
            "on_train_begin",
            lambda t: t.set_environment(step=1.0),
            "'step' of CartPole-v1 is no param",
        ),
        ("tensorflow", "on_train_begin", lambda t: t.set_environment(lenght=1.0), "it has: "),
        ("tensorflow", "on_train_begin", lambda t: t.set_environment(length="x"), "is a number, not 'x'"),
        (
            "vector",
            "on_iteration_end",
            lambda t: t.optimizer.feedback.__setitem__("none", 1),
            "no rule reads",
        ),
    ],
)
def test_what_a_callback_may_not_do(kind, hook, act, says, tmp_path):
    run = machine(kind).folder(tmp_path)
    with pytest.raises(CallbackError) as caught:
        machine(kind).train(run, callbacks=[Mistaken(hook, act)])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [(1, 2), {1: 2}, float("nan"), np.zeros(2), object()])
def test_a_state_is_json(state, tmp_path):
    class Odd(Callback):
        def state(self):
            return state

        def restore(self, state):
            pass

    with pytest.raises(CallbackError, match=r"Odd\.state returned what JSON cannot hold"):
        machine("vector").train(machine("vector").folder(tmp_path), callbacks=[Odd()])


class HalfState(Callback):
    def state(self):
        return 1


@pytest.mark.parametrize(
    ("callbacks", "says"),
    [
        ([StopAtReturn], r"callbacks\[0\] is the class StopAtReturn, and no instance"),
        ([StopAtReturn(1.0), "stop"], r"callbacks\[1\] is 'stop': takes instances of rlweights.Callback"),
        ([HalfState()], "HalfState defines one of `state` and `restore`"),
    ],
)
def test_what_is_no_callback(callbacks, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        rw.Recipe("cartpole").train(tmp_path, callbacks=callbacks)
    assert list(tmp_path.iterdir()) == []


def test_a_target_of_something_else():
    with pytest.raises(ConfigError, match="of = 'luck': takes 'evaluation' or 'training'"):
        StopAtReturn(1.0, "luck")


# Going back, and going on -------------------------------------------------------------------------


@pytest.mark.parametrize("first", [2, 6])
def test_a_run_that_goes_back_takes_its_callbacks_along(first, tmp_path, monkeypatch):
    """Before the first checkpoint (iteration 4) to the beginning, later to the checkpoint."""
    computer, counting, seen = machine("sync"), Counting(), []

    def judge(self, scalars, episodes):
        seen.append(len(counting.seen))
        if len(seen) == first:
            raise NotFinite("the test")

    monkeypatch.setattr("rlweights.running.guard.Guard.judge", judge)
    run = computer.folder(tmp_path, guard={"on_nonfinite": "rollback"})
    said = []
    computer.train(run, said=said, callbacks=[Curriculum(), counting], guard={"on_nonfinite": "rollback"})
    assert "attempt 1" in " ".join(said)
    assert counting.seen == list(range(1, 15))
    assert seen[first] == (0 if first == 2 else 4)
    series = read_scalars(run)["curriculum/force_mag"]
    expected = [4.0 + i - i % 2 if i > 1 else 4.0 for i in range(1, 15)]
    assert series == [((i + 1) * STEPS, value) for i, value in enumerate(expected)]


TINY = {
    "network.hidden_sizes": [4],
    "budget.total_timesteps": 1_024,
    "evaluation.final_episodes": 2,
    "evaluation.every": 512,
    "evaluation.episodes": 1,
}


def test_from_python_and_back(tmp_path, capsys):
    recipe = rw.Recipe("cartpole", TINY)
    outcome = recipe.begin(tmp_path, callbacks=[StopAtReturn(1.0)])
    assert (outcome.env_steps, session.exit_code(outcome)) == (512, 0)
    printed = " ".join(capsys.readouterr().out.split())
    assert "stopped after 512 steps by StopAtReturn: mean return" in printed
    assert json.loads((outcome.folder / "callbacks.json").read_text()) == ["StopAtReturn"]
    with pytest.raises(ConfigError, match="trained with the callbacks StopAtReturn, resumed with none"):
        session.resume(outcome.folder, ["budget.total_timesteps=2048"])
    budget = {"budget.total_timesteps": 2_048}
    agent = rw.Recipe.resume(
        outcome.folder, budget, quiet=True, callbacks=[StopAtReturn(1e9), StopAt("iteration", 7)]
    )
    assert agent.history()["eval/mean_reward"].steps[-1] == 7 * 256
    with pytest.raises(ConfigError, match="trained with the callbacks StopAtReturn, StopAt"):
        rw.Recipe.resume(outcome.folder, callbacks=[StopAtReturn(1.0)])


def test_callbacks_that_join_a_chosen_folder_stay(tmp_path):
    """By whichever of the two ways a run goes on."""
    recipe, folder = rw.Recipe("cartpole", TINY), tmp_path / "mine"
    recipe.begin(tmp_path, folder=folder, quiet=True, callbacks=[StopAtReturn(1.0)])
    both = [StopAtReturn(1e9), StopAt("iteration", 3)]
    recipe.begin(tmp_path, folder=folder, resume=True, quiet=True, callbacks=both)
    assert json.loads((folder / "callbacks.json").read_text()) == ["StopAtReturn", "StopAt"]


def test_a_run_warns_once_that_nothing_has_finished(tmp_path, monkeypatch):
    computer = machine("vector")
    monkeypatch.setattr(computer.loop, "warning", lambda: "nothing has ended")
    said = []
    computer.train(computer.folder(tmp_path), said=said)
    assert [each for each in said if "nothing has ended" in each] == [f"{STEPS:>10,}  nothing has ended"]
