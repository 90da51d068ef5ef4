"""Scalars that also go elsewhere: what is told, and what is read back in the formats of those others."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.recipe import Recipe
from rlweights.running.records import trackers
from rlweights.running.records.records import Records

SMALL = [
    *("budget.total_timesteps=512", "network.hidden_sizes=[4]", "algorithm.n_epochs=1", "logging.every=256"),
    *("evaluation.every=0", "evaluation.final_episodes=1", "evaluation.film_frames=0"),
]


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.told, self.closed = [], False

    def scalars(self, step, scalars):
        self.told.append((step, dict(scalars)))

    def close(self):
        self.closed = True


def trackers_of(monkeypatch, tmp_path, **made):
    """Trackers that are made by functions, and what is said of them."""
    said = []
    agent = agent_file.load(agent_file.find("cartpole"), [f"logging.trackers={list(made)}"])
    monkeypatch.setattr(
        trackers, "TRACKERS", {name: lambda *_, make=make: make() for name, make in made.items()}
    )
    return trackers.Trackers(agent, tmp_path, said.append), said


def test_what_is_recorded_is_told_if_it_is_finite_and_a_rewind_ends_nothing(tmp_path, monkeypatch):
    heard = Heard()
    tracker, _ = trackers_of(monkeypatch, tmp_path, wandb=lambda: heard)
    with Records(tmp_path, tracker=tracker) as records:
        records.write(1, {"a": 1.0, "b": float("nan"), "c": None, "d": float("inf")})
        records.rewind(0)
        records.write(1, {"a": 2.0})
        assert not heard.closed
    assert heard.told == [(1, {"a": 1.0}), (1, {"a": 2.0})]
    assert heard.closed


def test_one_that_fails_later_is_said_once_and_the_others_go_on(tmp_path, monkeypatch):
    def failing(*_):
        raise OSError("no network\nat all")

    bad, good = Heard(), Heard()
    tracker, said = trackers_of(monkeypatch, tmp_path, mlflow=lambda: bad, wandb=lambda: good)
    bad.scalars = failing
    for step in (1, 2):
        tracker.scalars(step, {"a": 1.0})
    tracker.close()
    assert said == ["mlflow is told no more: no network"]
    assert [step for step, _ in good.told] == [1, 2]
    assert (bad.closed, good.closed) == (False, True)
    with pytest.raises(ConfigError, match=r"logging\.trackers: wandb: no network$"):
        trackers_of(monkeypatch, tmp_path, wandb=failing)


def test_nothing_is_loaded_unless_asked_for():
    script = (
        "import sys; from rlweights.running import session; print({'wandb', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_what_is_not_installed_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb is not installed; pip install 'rlweights\[wandb\]'$"):
        Recipe("cartpole_plain", [*SMALL, 'logging.trackers=["wandb"]']).begin(tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"must be 'wandb' or 'mlflow'\. Did you mean 'wandb'"):
        agent_file.load(agent_file.find("cartpole"), ['logging.trackers=["wandbb"]'])


def test_a_whole_run_in_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs rlweights[mlflow]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    outcome = Recipe("cartpole_plain", [*SMALL, 'logging.trackers=["mlflow"]']).begin(
        tmp_path / "runs", quiet=True
    )
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(trackers.PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == f"cartpole_plain/{outcome.folder.name}"
    assert run.info.status == "FINISHED"
    assert run.data.params["algorithm.gamma"] == "0.98"
    assert [each.step for each in client.get_metric_history(run.info.run_id, "train/loss")] == [256, 512]
    assert run.data.metrics["eval/mean_reward"] == outcome.evaluation.mean
    again = trackers.Mlflow(outcome.folder, {})  # a resumed run goes on with its own
    assert again._run == run.info.run_id


def test_a_whole_run_in_weights_and_biases(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs rlweights[wandb]")
    from wandb.proto import wandb_internal_pb2  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = Recipe("cartpole_plain", [*SMALL, 'logging.trackers=["wandb"]']).begin(tmp_path, quiet=True)
    (file,) = outcome.folder.glob("wandb/offline-run-*/*.wandb")
    steps = []
    for data in log_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        steps += [int(items["env_steps"])] if "train/loss" in items else []
    assert steps == [256, 512]


def log_records(data: bytes):
    """The records of a file in LevelDB's log format, behind a header of seven bytes of its own."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32_768 - place % 32_768
        if left < 7:
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_each_tracker_is_told_by_the_words_of_its_own(tmp_path, monkeypatch):
    """Without the packages: what is called of them."""
    logged, finished = [], []
    run = SimpleNamespace(
        log=logged.append, finish=lambda: finished.append(True), define_metric=lambda *a, **k: None
    )
    asked = {}
    wandb = SimpleNamespace(init=lambda **options: asked.update(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    tracker = trackers.Wandb(tmp_path / "cartpole" / "0-1", {"algorithm.gamma": 0.98})
    tracker.scalars(7, {"a": 1.0})
    tracker.close()
    assert (asked["id"], asked["resume"], asked["config"]) == (
        "cartpole-0-1",
        "allow",
        {"algorithm.gamma": 0.98},
    )
    assert logged == [{"a": 1.0, "env_steps": 7}]
    assert finished == [True]
