"""The one atomic write: a file is the old one or the new one, whatever fails."""

import errno
import os
import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.errors import CheckpointError
from rlweights.running.saving.checkpoint_file import load, save
from support.checkpointed import FOLDER_SYNC, METADATA, STEPS_OF_SAVING, TENSORS, failing, names, same, state

# Faults while saving ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS_OF_SAVING, ids=lambda s: f"{s[0]}{s[1]}{'-half' if s[2] else ''}")
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only"),
        KeyboardInterrupt(),
    ],
)
def test_a_failure_at_any_step_of_saving_harms_nothing(tmp_path, monkeypatch, step, error):
    save(tmp_path / "a", state(1), {})
    name, at, first = step
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(getattr(os, name), at, error, first))
        raised = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(raised) as caught:
            save(tmp_path / "a", state(2), {})
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path}/a: saving failed: {error.strerror}"
    assert names(tmp_path) == ["a"]
    # Only the sync of the folder comes after the rename.
    assert same(load(tmp_path / "a")[0], state(2 if step in FOLDER_SYNC else 1))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 999), min_size=1, max_size=20))
def test_short_writes_are_completed(sizes):
    original, sizes = os.write, list(sizes)

    def short(descriptor, data):
        return original(descriptor, data[: sizes.pop() if sizes else None])

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", short)
        save(Path(folder) / "a", state(4), METADATA)
        assert same(load(Path(folder) / "a")[0], state(4))


def test_a_write_that_makes_no_progress_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda descriptor, data: 0)
    with pytest.raises(CheckpointError, match="a: saving failed: the system writes nothing more"):
        save(tmp_path / "a", TENSORS, {})


def test_a_real_limit_on_file_size(tmp_path):
    save(tmp_path / "a", TENSORS, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(CheckpointError, match="a: saving failed: File too large"):
            save(tmp_path / "a", state(1), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["a"]
    assert same(load(tmp_path / "a")[0], TENSORS)


def test_a_file_system_that_cannot_sync_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 2, OSError(errno.EINVAL, "Invalid argument")))
    save(tmp_path / "a", TENSORS, {})
    assert same(load(tmp_path / "a")[0], TENSORS)


# The checkpoints of a run -------------------------------------------------------------------------


def test_a_single_file_has_its_leftovers_removed_too(tmp_path):
    others = ["a_bin.00000000.tmp", "b.bin.00000000.tmp", "a.bin.old.tmp"]
    for name in ["a.bin.00000000.tmp", *others]:
        (tmp_path / name).touch()
    (tmp_path / "a.bin.11111111.tmp").mkdir()  # cannot be removed like a file: no reason not to save
    save(tmp_path / "a.bin", TENSORS, {})
    assert names(tmp_path) == sorted(["a.bin", "a.bin.11111111.tmp", *others])
