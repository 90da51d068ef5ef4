"""Records of a run: TensorBoard event files and `progress.csv`.

Every call hands its records to the operating system before it returns, so a kill loses nothing; after `flush`
they survive a power failure too.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from rlweights.errors import RecordsError
from rlweights.running import files
from rlweights.running.records.csv_file import CsvFile
from rlweights.running.records.event_file import EventFile
from rlweights.running.records.trackers import Tracker
from rlweights.weights.arrays import Array

BUCKETS = 30
"""Buckets of a histogram: enough to see a bound, few enough to keep event files small."""


class Records:
    """Writes scalars to TensorBoard and to `progress.csv`, and the rest to TensorBoard.

    Tags that begin with "time/" are left out of the CSV: without them two runs of the same seed give the
    same bytes.

    Args:
        folder: The run folder. It must exist.
        resume_step: The step from which a resumed run goes on. Records beyond it are removed.
        tracker: Where else scalars go; closed with the records. What was told there stays there.

    Raises:
        RecordsError: Here and in every method, if the disk is full, or the folder is read-only or has
            vanished. Nothing can be recorded after that, but the records before it are intact.
    """

    def __init__(self, folder: str | Path, *, resume_step: int | None = None, tracker: Tracker | None = None):
        self.folder = Path(folder)
        self._tracker = tracker
        self._failure: RecordsError | None = None
        used = [*self.folder.glob(CsvFile.NAME), *self.folder.glob("events.out.tfevents.*")]
        if used and resume_step is None:
            raise RecordsError(f"{self.folder}: holds records already; resume that run, or take a new folder")
        self._open(-1 if resume_step is None else resume_step)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if self._tracker is not None:
            self._tracker.close()

    def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Records scalars at an environment step.

        Several calls for one step make one row. A step before the newest one means that the run went back
        (see `rewind`).

        Args:
            step: Environment steps so far.
            scalars: By tag. NaN and None mean that there is no value, and are left out.
        """
        kept = {tag: float(value) for tag, value in scalars.items() if value is not None and value == value}
        if step < self._table.newest:
            self.rewind(step - 1)
        if self._tracker is not None:
            self._tracker.scalars(step, kept)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in kept.items()]
        self.summary(Summary(value=values), step)
        with self._explained(self._table.path):
            self._table.write(step, {k: v for k, v in kept.items() if not k.startswith("time/")})

    def histogram(
        self,
        step: int,
        tag: str,
        values: Array,
        bound: float | None = None,
        buckets: int = BUCKETS,
    ) -> None:
        """Records how the finite ones of `values`, of any shape, are distributed; nothing if none are.

        Args:
            step: Environment steps so far.
            tag: Its tag.
            values: The values to count.
            bound: The largest |value| that is allowed: an empty bucket at each end reaches to it, so that the
                axis of TensorBoard's chart ends there, and so do the outermost lines of its distributions.
            buckets: Number of equal buckets between the smallest and the largest value.
        """
        flat = np.ravel(values)
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        edges = np.linspace(low, high, buckets + 1)
        # All values equal: all are counted in the last bucket. Otherwise a range costs less than edges do.
        counts, _ = np.histogram(flat, buckets, (low, high)) if low < high else np.histogram(flat, edges)
        triples = np.stack([edges[:-1], edges[1:], counts.astype(np.float64)], axis=1)
        if bound is not None and bound > max(-low, high):
            triples = np.concatenate([[[-bound, low, 0.0]], triples, [[high, bound, 0.0]]])
        self._tensor(step, tag, triples, histogram_metadata)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Records a text in Markdown."""
        self._tensor(step, tag, np.array([markdown.encode()], dtype=object), text_metadata)

    def animation(self, step: int, tag: str, gif: bytes, size: tuple[int, int]) -> None:
        """Records an animated picture.

        Args:
            step: Environment steps so far.
            tag: Its tag.
            gif: The picture, as a GIF.
            size: Its height and width.
        """
        height, width = (str(each).encode() for each in size)
        self._tensor(step, tag, np.array([width, height, gif], dtype=object), image_metadata)

    def summary(self, summary: Summary, step: int = 0) -> None:
        """Records a ready summary: a layout, hyper-parameters."""
        self._add(Event(step=step, summary=summary))

    def rewind(self, step: int) -> None:
        """Removes the records beyond `step`: for a run that goes back to a checkpoint."""
        self.close()
        self._open(step)

    def flush(self) -> None:
        """Waits until everything recorded so far is on the disk."""
        for path in (self._events.path, self._table.path):
            with self._explained(path):
                files.must_exist(path)
                files.sync(path)

    def close(self) -> None:
        """Closes the files."""
        self._table.close()
        if self._failure is None:
            with self._explained(self._events.path):
                self._events.close()

    def _open(self, step: int) -> None:
        with self._explained(self.folder):
            self._events = EventFile(self.folder, step)
            self._table = CsvFile(self.folder, step)

    def _tensor(self, step: int, tag: str, value: Array, plugin: Any) -> None:
        metadata: SummaryMetadata = plugin.create_summary_metadata(display_name="", description="")
        tensor = tensor_util.make_tensor_proto(value)
        self.summary(Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]), step)

    def _add(self, event: Event) -> None:
        with self._explained(self._events.path):
            self._events.add(event)

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        """Turns an error of the file system into one line, and raises it again in every later call."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except (OSError, tf.errors.OpError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.message.rpartition("; ")[2]
            self._failure = RecordsError(
                f"{path}: cannot be written: {reason}. Make room, or bring the folder back and make it "
                f"writable; then resume the run"
            )
            raise self._failure from error
