"""A run that was killed at any moment and resumed ends like one that was not."""

import math
import shutil
from pathlib import Path

import pytest

from rlweights.errors import CheckpointError
from rlweights.learning.batch import Episodes
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file
from rlweights.running.saving.checkpoints import Checkpoints
from rlweights.running.saving.run_state import WINDOW, EpisodeWindow, RunState
from support.simulated import (
    STEPS,
    Machine,
    Mortal,
    assert_same_result,
    machine,
    newest,
    result,
    steps_saved,
)

# Killed -------------------------------------------------------------------------------------------


def killed(computer: Machine, folder: Path, moments) -> None:
    """Lets one process after the other die at its moment, and the last one live."""
    for i, (at, after) in enumerate(moments):
        life = Mortal(computer, at, after)
        with life.living():
            computer.train(folder, resume=i > 0)
        assert life.dead, f"it ended before moment {at}"
    computer.train(folder, resume=True)


# The first checkpoint is written around deed 40 of 105 to 120.
@pytest.mark.parametrize(("at", "after"), [(4, False), (31, True), (40, False), (66, True), (93, False)])
def test_killed_at_a_moment(whole, tmp_path, at, after):
    computer, expected, _ = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [(at, after)])
    assert_same_result(result(folder), expected)


@pytest.mark.parametrize("deed", ["rename", "remove"])
def test_killed_at_the_last_moments(whole, tmp_path, deed):
    """Before the checkpoint that says "finished" is there, and between it and the tidying up."""
    computer, expected, deeds = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [((deed, deeds.count(deed)), False)])
    assert result(folder)["progress"]["finished"]
    assert_same_result(result(folder), expected)


def test_killed_again_and_again(whole, tmp_path):
    computer, expected, _ = whole
    folder = computer.folder(tmp_path)
    killed(computer, folder, [(50, False), (8, True), (30, False), (30, True), (45, False)])
    assert_same_result(result(folder), expected)


@pytest.mark.slow
def test_killed_at_every_moment(whole, tmp_path):
    computer, expected, deeds = whole
    for at in range(1, len(deeds) - 1):  # in how many calls the compiled loop runs depends on the time
        folder = computer.folder(tmp_path)
        killed(computer, folder, [(at, at % 2 == 0)])
        assert_same_result(result(folder), expected)
        shutil.rmtree(folder)


def test_a_run_without_a_checkpoint_starts_over_in_its_folder(whole, tmp_path):
    computer, expected, _ = whole
    folder, said = computer.folder(tmp_path), []
    with Mortal(computer, ("write", 3)).living():  # after the lock and best/, in the first checkpoint
        computer.train(folder)
    assert (folder / "best" / "weights.safetensors").exists()
    assert not steps_saved(folder)
    with Mortal(computer, 6).living():
        computer.train(folder, resume=True, said=said)
    assert said == ["there is no checkpoint yet: the run starts over"]
    assert not (folder / "best" / "weights.safetensors").exists(), "best of a future that may never come"
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_best_weights_from_beyond_the_checkpoint_are_taken_back(whole, tmp_path):
    computer, _, _ = whole
    folder = computer.folder(tmp_path)
    best = folder / "best" / "weights.safetensors"
    # The lock, best/, the first checkpoint, best/ two iterations later, the second checkpoint.
    with Mortal(computer, ("write", 5)).living():
        computer.train(folder)
    (step,) = steps_saved(folder)
    _, beyond = checkpoint_file.load(best)
    assert beyond["env_steps"] > step, "the second evaluation was no better: this shows nothing"
    with Mortal(computer, 6).living():
        computer.train(folder, resume=True)
    tensors, metadata = checkpoint_file.load(best)
    assert [metadata["mean_reward"], metadata["env_steps"]] == newest(folder)[2]["best"]
    assert metadata["env_steps"] <= step
    saved, _ = checkpoint_file.load(Checkpoints(folder / "checkpoints").path(step))
    assert {name: tensor.tobytes() for name, tensor in tensors.items()} == {
        name[5:]: tensor.tobytes() for name, tensor in saved.items() if name.startswith("best/")
    }


def test_what_happened_before_a_checkpoint_was_recorded_before(tmp_path, monkeypatch):
    computer, seen, save = machine(), [], RunState.save

    def looking(self, progress, probe, step):
        table = (folder / "progress.csv").read_text().splitlines()
        series = read_scalars(folder)
        columns = table[0].split(",")
        row = dict(zip(columns, table[-1].split(","), strict=True))
        assert int(row["env_steps"]) == step
        assert row["train/loss"]
        assert series["train/loss"][-1][0] == step
        if step % (3 * STEPS) == 0:
            assert row["eval/mean_reward"]
        seen.append(step)
        save(self, progress, probe, step)

    monkeypatch.setattr(RunState, "save", looking)
    folder = computer.folder(tmp_path)
    computer.train(folder)
    assert seen == [4 * STEPS, 8 * STEPS, 12 * STEPS, 14 * STEPS]


# Locked, damaged ----------------------------------------------------------------------------------


def test_a_damaged_checkpoint_falls_back_to_the_one_before(whole, tmp_path, monkeypatch):
    computer, expected, _ = whole
    folder, said, resumed_at = computer.folder(tmp_path), [], []
    with Mortal(computer, ("evaluation", 5)).living():
        computer.train(folder)
    *_, before, last = steps_saved(folder)
    path = Checkpoints(folder / "checkpoints").path(last)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    advance = computer.loop.advance
    monkeypatch.setattr(computer.loop, "advance", lambda i, n: resumed_at.append(i) or advance(i, n))
    computer.train(folder, resume=True, said=said)
    assert resumed_at[0] * STEPS == before
    (told,) = [line for line in said if "alarm: " not in line]
    assert f"{path}: damaged" in told
    assert "trying the checkpoint before" in told
    assert_same_result(result(folder), expected)


def test_nothing_but_damaged_checkpoints_is_an_error_and_changes_nothing(tmp_path):
    computer = machine()
    folder = computer.folder(tmp_path)
    with Mortal(computer, 80).living():
        computer.train(folder)
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    table = (folder / "progress.csv").read_bytes()
    with pytest.raises(CheckpointError, match="none of 2 can be read"):
        computer.train(folder, resume=True)
    assert (folder / "progress.csv").read_bytes() == table


def test_the_window_holds_the_newest_episodes():
    window = EpisodeWindow()
    assert window.scalars() == {}
    window.add(Episodes(0, 0.0, 0))
    assert window.scalars() == {}
    window.add(Episodes(WINDOW, 100.0, 900))
    window.add(Episodes(WINDOW - 1, 400.0, 1000))
    mean = 500.0 / (2 * WINDOW - 1)
    assert window.scalars() == {
        "rollout/ep_rew_mean": mean,
        "rollout/ep_len_mean": 1900 / (2 * WINDOW - 1),
    }
    window.add(Episodes(1, 3.0, 3))
    assert window.scalars()["rollout/ep_rew_mean"] == pytest.approx(403.0 / WINDOW)
    before = window.scalars()
    for bad in (math.nan, math.inf):
        window.add(Episodes(5, bad, 5))
    assert window.scalars() == before
