"""The training loop: what it does when, that looking changes nothing, and what is said when a disk fails."""

import errno
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from rlweights.errors import BrokenEnvironment, guarded
from rlweights.learning.evaluation import Result
from rlweights.running import session
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file
from support.simulated import (
    STEPS,
    all_finite,
    assert_same_result,
    machine,
    newest,
    result,
    steps_saved,
    written,
)

BACKENDS = ("gymnasium", "tensorflow")


@pytest.fixture(scope="module", params=BACKENDS)
def run(request, tmp_path_factory):
    """A machine and the folder of a run of it."""
    computer = machine(request.param)
    folder = computer.folder(tmp_path_factory.mktemp("run"))
    computer.train(folder)
    return computer, folder


def state(folder: Path) -> dict[str, bytes]:
    """All trained state in the last checkpoint: everything but the best weights and the probe."""
    _, tensors, _ = newest(folder)
    return {k: v.tobytes() for k, v in tensors.items() if k != "probe" and not k.startswith("best/")}


# What happens when --------------------------------------------------------------------------------


def test_what_a_run_leaves(run):
    _, folder = run
    every = [STEPS * i for i in range(1, 15)]
    series = read_scalars(folder)
    assert [step for step, _ in series["train/loss"]] == every
    assert [step // STEPS for step, _ in series["eval/mean_reward"]] == [3, 6, 9, 12, 14]
    norms = [tag for tag in series if tag.startswith("weights/") and tag.endswith("/norm")]
    assert norms
    for tag in norms:
        assert [step // STEPS for step, _ in series[tag]] == [0, 3, 6, 9, 12, 14]
    moved = [tag for tag in series if tag.endswith("/distance_from_init")]
    assert all(series[tag][0][1] == 0.0 < series[tag][1][1] for tag in moved), (
        "before training nothing has moved"
    )
    assert steps_saved(folder) == [8 * STEPS, 12 * STEPS, 14 * STEPS]
    assert all_finite(folder)
    assert {p.name.partition(".out.")[0] for p in folder.iterdir()} == {
        *(".lock", "agent.toml", "best", "checkpoints", "latest", "progress.csv", "events")
    }


def test_rows_are_as_far_apart_as_wanted_and_the_last_one_is_there(tmp_path):
    computer = machine()
    folder = computer.folder(tmp_path)
    computer.train(folder, logging={"every": 5 * STEPS}, evaluation={"every": 0}, checkpoint={"every": 0})
    series = read_scalars(folder)
    assert [step // STEPS for step, _ in series["train/loss"]] == [5, 10, 14]
    assert [step // STEPS for step, _ in series["eval/mean_reward"]] == [14]
    assert steps_saved(folder) == [14 * STEPS]


def test_saved_weights_are_the_clean_ones(run):
    """Noise is drawn in every iteration; clipped to 1 / sqrt(4 inputs) are the weights without it."""
    _, folder = run
    for name in ("latest", "best"):
        weights, _ = checkpoint_file.load(folder / name / "weights.safetensors")
        kernels = [np.abs(w).max() for path, w in weights.items() if path.endswith("kernel")]
        assert max(kernels) == 0.5, f"{name}: nothing was clipped: {kernels}"
    latest, metadata = checkpoint_file.load(folder / "latest" / "weights.safetensors")
    assert metadata == {"env_steps": 14 * STEPS}
    _, tensors, _ = newest(folder)
    assert all((tensors[path] == weight).all() for path, weight in latest.items())


def test_best_are_the_weights_of_the_best_evaluation(tmp_path, monkeypatch):
    computer, means, seen = machine(), iter([5.0, 7.0, math.nan, 7.0, 6.0]), []

    def evaluated(*args, **kwargs):
        seen.append({v.path: v.numpy().copy() for v in computer.assembly.networks.variables})
        mean = next(means)
        return Result(np.array([mean, mean]), np.array([3, 3]))

    monkeypatch.setattr("rlweights.running.building.policy.evaluate", evaluated)
    folder = computer.folder(tmp_path)
    computer.train(folder)
    weights, metadata = checkpoint_file.load(folder / "best" / "weights.safetensors")
    assert metadata == {"env_steps": 12 * STEPS, "mean_reward": 7.0}, "of equal ones the newest"
    assert all((seen[3][path] == weight).all() for path, weight in weights.items())


# Nothing that looks changes anything --------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(run, tmp_path):
    computer, folder = run
    again = computer.folder(tmp_path)
    computer.train(again)
    assert_same_result(result(again), result(folder))


def test_another_seed_gives_another_run(tmp_path):
    computer = machine()
    weights = []
    for attempt in (0, 1):
        computer.loop.begin(0, attempt)
        computer.loop.advance(0, 1)
        weights.append(computer.assembly.networks.trainable_variables[0].numpy().tobytes())
    assert weights[0] != weights[1]


@pytest.mark.parametrize(
    "sections",
    [
        {"evaluation": {"every": 0, "final_episodes": 1}},
        {"evaluation": {"every": STEPS, "episodes": 3, "deterministic": False}},
        {"logging": {"diagnostics_every": 0, "histograms_every": 0}},
        {"logging": {"every": 3 * STEPS, "diagnostics_every": 1, "histograms_every": 1}},
        {"checkpoint": {"keep": 1}},
    ],
    ids=["no evaluation", "much evaluation", "no diagnostics", "much diagnostics", "keep"],
)
def test_looking_changes_nothing(run, tmp_path, sections):
    computer, folder = run
    other = computer.folder(tmp_path)
    computer.train(other, **sections)
    assert state(other) == state(folder)


def test_showing_changes_nothing(run, tmp_path):
    computer, folder = run
    other = computer.folder(tmp_path)
    computer.train(other, quiet=False)
    assert_same_result(result(other), result(folder))


@pytest.mark.parametrize("count", [1, 2, 64])
def test_iterations_per_call_change_nothing(tmp_path, monkeypatch, count):
    """Not the weights, and not what is recorded of them."""
    computer = machine("tensorflow")
    folder = computer.folder(tmp_path)
    computer.train(folder)
    advance, made = computer.loop.advance, []

    def forced(iteration, limit):
        computer.loop._count = count
        rows = advance(iteration, limit)
        made.append(len(rows))
        return rows

    monkeypatch.setattr(computer.loop, "advance", forced)
    other = computer.folder(tmp_path)
    computer.train(other)
    assert max(made) == min(count, 2), "the first iteration is alone: weights are measured before it"
    assert_same_result(result(other), result(folder))


# Failures -----------------------------------------------------------------------------------------


class Failing:
    """Makes one function of the system fail from its n-th call on, until `mended`.

    Of writes, (folder, n) counts those into a folder whose name begins so; then every write fails.
    """

    def __init__(self, monkeypatch, owner, name, number, error):
        self.calls, self.original, self.patch = 0, getattr(owner, name), monkeypatch
        self.owner, self.name = owner, name
        folder, number = number if isinstance(number, tuple) else ("", number)

        def failing(*args, **kwargs):
            if not folder or self.calls >= number or written(args[0]).parent.name.startswith(folder):
                self.calls += 1
            if self.calls >= number:
                raise error
            return self.original(*args, **kwargs)

        monkeypatch.setattr(owner, name, failing)

    def mended(self) -> None:
        assert self.calls
        self.patch.setattr(self.owner, self.name, self.original)


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize(
    ("owner", "name", "number", "error", "says"),
    [
        (os, "write", ("checkpoints", 2), FULL, "saving failed: No space left on device"),
        (os, "write", ("best", 1), FULL, "best/weights.safetensors: saving failed: No space left on device"),
        (os, "write", ("run-", 3), FULL, "progress.csv: cannot be written: No space left on device"),
        (os, "replace", 8, READ_ONLY, "Read-only file system"),
        (os, "fsync", 9, OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (Path, "mkdir", 2, READ_ONLY, "saving failed: Read-only file system"),
        (
            tf.io.TFRecordWriter,
            "write",
            20,
            tf.errors.ResourceExhaustedError(None, None, "events; No space left on device"),
            "cannot be written: No space left on device. Make room",
        ),
    ],
    ids=["checkpoint", "best", "table", "rename", "sync", "folder", "events"],
)
def test_a_disk_that_fails(run, tmp_path, monkeypatch, capsys, owner, name, number, error, says):
    """One line, exit code 3, and once it is mended the run ends as if nothing had happened."""
    computer, whole = run
    folder = computer.folder(tmp_path)
    failing = Failing(monkeypatch, owner, name, number, error)
    code = guarded(lambda: session.exit_code(computer.train(folder)))
    captured = capsys.readouterr()
    failing.mended()
    assert (code, captured.out) == (3, "")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert str(folder) in captured.err
    for path in folder.rglob("*.safetensors"):
        checkpoint_file.load(path)
    computer.train(folder, resume=True)
    assert_same_result(result(folder), result(whole))


@pytest.mark.parametrize(
    ("gone", "says"),
    [
        (".", "it has vanished. Make room, or bring the folder back"),
        ("progress.csv", "progress.csv: cannot be written: it has vanished"),
        ("events*", ": cannot be written: it has vanished"),
    ],
)
def test_what_vanishes_while_training(run, tmp_path, monkeypatch, capsys, gone, says):
    computer, _ = run
    folder, advance = computer.folder(tmp_path), computer.loop.advance

    def advancing(iteration, limit):
        if iteration == 6:
            for path in [folder] if gone == "." else list(folder.glob(gone)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return advance(iteration, limit)

    monkeypatch.setattr(computer.loop, "advance", advancing)
    assert guarded(lambda: session.exit_code(computer.train(folder))) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_a_folder_of_checkpoints_that_vanishes_is_made_again(run, tmp_path, monkeypatch):
    computer, whole = run
    folder, advance = computer.folder(tmp_path), computer.loop.advance

    def advancing(iteration, limit):
        if iteration == 6:
            shutil.rmtree(folder / "checkpoints")
        return advance(iteration, limit)

    monkeypatch.setattr(computer.loop, "advance", advancing)
    computer.train(folder)
    assert_same_result(result(folder), result(whole))


def test_an_environment_that_breaks(run, tmp_path, monkeypatch, capsys):
    computer, whole = run
    folder, advance = computer.folder(tmp_path), computer.loop.advance

    def advancing(iteration, limit):
        if iteration == 9:
            raise BrokenEnvironment("Plant-v3: step() raised ValueError: no water")
        return advance(iteration, limit)

    with monkeypatch.context() as patch:
        patch.setattr(computer.loop, "advance", advancing)
        assert guarded(lambda: session.exit_code(computer.train(folder))) == 3
    assert capsys.readouterr().err == "error: Plant-v3: step() raised ValueError: no water\n"
    _, metadata = checkpoint_file.load(folder / "latest" / "weights.safetensors")
    assert metadata == {"env_steps": 9 * STEPS}
    computer.train(folder, resume=True)
    assert_same_result(result(folder), result(whole))
