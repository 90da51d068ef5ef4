"""The checkpoints of a run: the newest that is whole, after faults and kills in the middle of saving."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlweights.errors import CheckpointError
from rlweights.running.saving.checkpoints import THREADS, Checkpoints
from support.checkpointed import STEPS_OF_SAVING, TENSORS, failing, names, same, state

REPOSITORY = Path(__file__).parents[3]


# Faults while saving ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS_OF_SAVING, ids=lambda s: f"{s[0]}{s[1]}{'-half' if s[2] else ''}")
def test_a_failed_save_leaves_the_older_checkpoints(tmp_path, monkeypatch, step):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, state(1), {})
    name, at, first = step
    with monkeypatch.context() as patch:
        patch.setattr(
            os, name, failing(getattr(os, name), at, OSError(errno.EIO, "Input/output error"), first)
        )
        with pytest.raises(
            CheckpointError, match=r"step-0+2\.safetensors: saving failed: Input/output error"
        ):
            kept.save(2, state(2), {})
    assert 1 in kept.steps(), "pruned before the new one was safe"
    found = kept.load_latest(on_damaged=pytest.fail)
    assert found is not None
    assert same(found[1], state(found[0]))


def test_a_failed_rename_while_tidying_keeps_the_new_checkpoint(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    kept.save(9, state(9), {})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, 2, OSError(errno.EIO, "Input/output error")))
        with pytest.raises(
            CheckpointError, match=r"saved, but tidying the folder failed: Input/output error"
        ):
            kept.save(5, state(5), {})
    assert kept.steps() == [5, 9]


def test_a_folder_that_cannot_be_made_or_listed(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"step-0+1\.safetensors: saving failed: File exists"):
        Checkpoints(tmp_path / "file").save(1, TENSORS, {})
    with pytest.raises(CheckpointError, match="file: listing failed: Not a directory"):
        Checkpoints(tmp_path / "file").load_latest()


# The checkpoints of a run -------------------------------------------------------------------------


def test_the_newest_are_kept(tmp_path):
    kept = Checkpoints(tmp_path / "run" / "checkpoints", keep=2)
    assert kept.steps() == []
    assert kept.load_latest() is None
    for step in (0, 100, 2_000, 10**13):
        assert kept.save(step, state(step), {"step": step}) == kept.path(step)
    assert kept.steps() == [2_000, 10**13]
    found = kept.load_latest()
    assert found is not None
    assert (found[0], found[2]["step"]) == (10**13, 10**13)


def test_an_old_checkpoint_that_somebody_else_removed_is_no_error(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, keep=1)
    monkeypatch.setattr(kept, "steps", lambda: [1, 2])
    kept.save(2, state(2), {})
    assert names(tmp_path) == [kept.path(2).name]


@pytest.mark.parametrize("bad", [lambda f: Checkpoints(f, keep=0), lambda f: Checkpoints(f).path(-1)])
def test_impossible_numbers_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="must"):
        bad(tmp_path)


def test_a_damaged_newest_falls_back_with_a_message_and_stays(tmp_path):
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, state(step), {})
    kept.path(3).write_bytes(b"")
    os.truncate(kept.path(2), 500)
    before, messages = {n: (tmp_path / n).read_bytes() for n in names(tmp_path)}, []
    found = Checkpoints(tmp_path).load_latest(on_damaged=messages.append)
    assert found is not None
    assert found[0] == 1
    assert same(found[1], state(1))
    assert [m.split(": ")[0] for m in messages] == [str(kept.path(3)), str(kept.path(2))]
    assert {n: (tmp_path / n).read_bytes() for n in names(tmp_path)} == before

    kept.path(1).write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"none of 3 can be read; the newest: .*step-000000000003"):
        kept.load_latest(on_damaged=lambda message: None)


def test_damage_is_logged_when_nobody_listens(tmp_path, caplog):
    kept = Checkpoints(tmp_path)
    kept.save(1, state(1), {})
    kept.path(2).touch()
    kept.load_latest()
    assert "step-000000000002.safetensors: damaged or not a checkpoint" in caplog.text


def test_going_on_from_an_older_checkpoint_sets_the_damaged_one_aside(tmp_path):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, state(1), {})
    kept.path(9).write_bytes(b"damaged")
    kept.save(2, state(2), {})
    assert kept.steps() == [2]
    assert Path(f"{kept.path(9)}.set-aside").read_bytes() == b"damaged"


def test_an_intact_file_of_another_agent_is_an_error_and_no_damage(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, TENSORS, {})
    kept.save(2, state(2), {})
    with pytest.raises(
        CheckpointError, match=r"step-000000000002.*missing 'count', 'kernel', 'on'; unexpected"
    ):
        kept.load_latest({n: (a.shape, a.dtype) for n, a in TENSORS.items()}, on_damaged=pytest.fail)


def test_only_a_save_removes_leftovers_and_only_ours(tmp_path):
    kept = Checkpoints(tmp_path)
    leftover = f"{kept.path(7).name}.0123abcd.tmp"
    foreign = [
        "notes.tmp",
        "step-7.safetensors",
        "step-000000000007.safetensors.tmp",
        "step-٠٠٠٠٠٠٠٠٠٠٠٠.safetensors",
    ]
    for name in [leftover, *foreign]:
        (tmp_path / name).touch()
    assert Checkpoints(tmp_path).load_latest() is None
    assert leftover in names(tmp_path), "an evaluation removed what a running training is writing"
    kept.save(1, state(1), {})
    assert names(tmp_path) == sorted([*foreign, kept.path(1).name])


# Kills --------------------------------------------------------------------------------------------


WRITER = """
import itertools, os, pathlib, signal, sys
import numpy as np
from rlweights.running.saving.checkpoints import THREADS, Checkpoints
assert not {"tensorflow", "keras"} & sys.modules.keys()

folder, name, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
kept = Checkpoints(folder, keep=2)
first = (kept.steps() or [0])[-1] + 1

def save(step):
    kept.save(step, {"weights": np.full((40, 50), step, np.float32), "step": np.array(step)}, {"step": step})

for step in range(first, first + 3):
    save(step)
print("ready", flush=True)

if name:  # dies in the middle of one step of one save
    owner = pathlib.Path if name == "unlink" else os
    original, calls = getattr(owner, name), itertools.count(1)
    def deadly(*args, **kwargs):
        if next(calls) != at:
            return original(*args, **kwargs)
        if name == "write":
            original(args[0], args[1][:1000])
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, deadly)
for step in itertools.count(first + 3):
    save(step)
"""


def writer(folder: Path, name: str = "", at: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(at)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
    return process


def latest_is_whole(folder: Path) -> int:
    found = Checkpoints(folder).load_latest(on_damaged=pytest.fail)
    assert found is not None
    step, tensors, metadata = found
    assert same(tensors, state(step))
    assert metadata.pop(THREADS) >= 1
    assert metadata == {"step": step}
    return step


@pytest.mark.parametrize(
    ("name", "at", "step"),
    [("write", 1, 3), ("fsync", 1, 3), ("replace", 1, 3), ("fsync", 2, 4), ("unlink", 1, 4), ("write", 2, 4)],
)
def test_a_kill_in_the_middle_of_one_step(tmp_path, name, at, step):
    process = writer(tmp_path, name, at)
    assert process.wait() == -signal.SIGKILL
    assert latest_is_whole(tmp_path) == step
    kept = Checkpoints(tmp_path, keep=2)
    kept.save(step + 1, state(step + 1), {"step": step + 1})
    assert names(tmp_path) == [kept.path(step).name, kept.path(step + 1).name]


def test_kills_at_random_moments(tmp_path):
    moments, newest = random.Random(0), 0
    for _ in range(10):
        process = writer(tmp_path)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.wait()
        step = latest_is_whole(tmp_path)
        assert step >= newest + 3, "what was saved before the kill is gone"
        newest = step
