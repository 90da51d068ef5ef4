"""The checkpoints of one run: one file for each step, the newest few kept."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlweights import backend
from rlweights.errors import CheckpointError
from rlweights.running import files
from rlweights.running.saving.checkpoint_file import check_expected, load, reason, save
from rlweights.weights.arrays import Array

_STEP_FILE = re.compile(r"step-([0-9]{12,})\.safetensors")
THREADS = "threads"
"""In the metadata: how many threads an operation had, see `rlweights.backend.use_threads`."""

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run, one file per step, the newest few kept.

    One process writes (the run lock ensures that); any number may read at the same time, so reading and
    construction never change the folder. The next save removes what a killed writer left half-written.

    Args:
        folder: Folder of the files; the first save makes it.
        keep: Number of checkpoints that a save leaves.

    Raises:
        ValueError: If `keep` is less than 1.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder = Path(folder)
        self.keep = keep

    def path(self, step: int) -> Path:
        """Returns the path of the file of one step."""
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        return self.folder / f"step-{step:012d}.safetensors"

    def steps(self) -> list[int]:
        """Returns the steps that have a file, readable or not, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.folder}: listing failed: {reason(error)}") from error
        matches = (_STEP_FILE.fullmatch(name) for name in names)
        return sorted(int(match[1]) for match in matches if match)

    def save(self, step: int, tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of one step (see `checkpoint_file.save`), then removes the oldest.

        The number of threads goes into the metadata: a run that goes on with another one ends otherwise.

        Files of *later* steps exist only if they could not be read and the run went on from an earlier one.
        They are renamed to `*.set-aside`, so that the newest step is the last one saved.

        Returns:
            The file written.
        """
        path = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.remove_leftovers(self.folder, _STEP_FILE.pattern)
        except OSError as error:
            raise CheckpointError(f"{path}: saving failed: {reason(error)}") from error
        save(path, tensors, {**metadata, THREADS: backend.threads()})
        steps = self.steps()
        try:
            for later in (self.path(other) for other in steps if other > step):
                os.replace(later, later.with_name(later.name + ".set-aside"))
            for old in [other for other in steps if other <= step][: -self.keep]:
                self.path(old).unlink(missing_ok=True)
        except OSError as error:
            message = f"{path}: saved, but tidying the folder failed: {reason(error)}"
            raise CheckpointError(message) from error
        return path

    def load_latest(
        self,
        expect: Mapping[str, tuple[Any, Any]] | None = None,
        on_damaged: Callable[[str], object] = _LOGGER.warning,
    ) -> tuple[int, dict[str, Array], dict[str, Any]] | None:
        """Reads the newest checkpoint that is not damaged.

        Args:
            expect: As for `checkpoint_file.load`. A whole file that holds other tensors is an error, not
                damage: an older one is not tried.
            on_damaged: Called with a message for each newer file that cannot be read; the file stays.

        Returns:
            Step, tensors and metadata, or None when there is no checkpoint at all.

        Raises:
            CheckpointError: If there are files but none can be read, or the newest whole one is unexpected.
        """
        problems = []
        for step in reversed(self.steps()):
            try:
                tensors, metadata = load(self.path(step))
            except CheckpointError as error:
                problems.append(str(error))
                on_damaged(f"{error}; trying the checkpoint before it")
                continue
            if expect is not None:
                check_expected(self.path(step), tensors, expect)
            return step, tensors, metadata
        if problems:
            count = len(problems)
            raise CheckpointError(f"{self.folder}: none of {count} can be read; the newest: {problems[0]}")
        return None
