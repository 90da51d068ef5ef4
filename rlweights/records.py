"""Records of a run: TensorBoard event files and `progress.csv`."""

import csv
import io
import os
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

BUCKETS = 30
"""Buckets of a histogram: enough to see a bound, few enough to keep event files small."""


class RecordsError(RuntimeError):
    """The records cannot be written, explained in one line."""


class Records:
    """Writes scalars to TensorBoard and to `progress.csv`, and the rest to TensorBoard.

    Tags that begin with "time/" are left out of the CSV: without them two runs of the same seed give the
    same bytes.

    Args:
        folder: The run folder.
        resume_step: Where a resumed run goes on: rows beyond it are dropped from the CSV, and TensorBoard is
            told to forget what was written beyond it.
    """

    def __init__(self, folder: str | Path, *, resume_step: int | None = None):
        self.folder = Path(folder)
        self._csv = self.folder / "progress.csv"
        self._columns: list[str] = ["env_steps"]
        self._pending: tuple[int, dict[str, float]] | None = None
        try:
            self._truncate(resume_step)
            self._rows = self._csv.open("a", newline="", encoding="utf-8")
            self._events = EventFileWriter(str(self.folder), max_queue_size=1000, flush_secs=5)
        except OSError as error:
            raise self._error(error) from error
        if resume_step is not None:
            self._add(resume_step + 1, session_log=SessionLog(status=SessionLog.START))

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    # Scalars --------------------------------------------------------------------------------------

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records scalars at an environment step; NaN stands for "nothing to say" and is left out.

        Two calls for the same step make one row.

        Raises:
            RecordsError: If the disk is full or the folder has vanished.
        """
        kept = {tag: float(value) for tag, value in scalars.items() if value == value}
        values = [
            Summary.Value(
                tag=tag,
                tensor=tensor_util.make_tensor_proto(np.float32(value)),
                metadata=scalar_metadata.create_summary_metadata(display_name="", description=""),
            )
            for tag, value in kept.items()
        ]
        self._add(step, summary=Summary(value=values))
        row = {tag: value for tag, value in kept.items() if not tag.startswith("time/")}
        if self._pending is not None and self._pending[0] == step:
            self._pending[1].update(row)
        else:
            self._write_row()
            self._pending = (step, row)

    def _write_row(self) -> None:
        """Writes the row that no further call can add to."""
        if self._pending is None:
            return
        step, scalars = self._pending
        self._pending = None
        try:
            new = [tag for tag in scalars if tag not in self._columns]
            if new or self._rows.tell() == 0:
                self._columns += new
                self._rewrite()
            writer = csv.writer(self._rows, lineterminator="\n")
            writer.writerow([step, *(_shortest(scalars.get(tag)) for tag in self._columns[1:])])
            self._rows.flush()
        except OSError as error:
            raise self._error(error) from error

    def _rewrite(self) -> None:
        """Widens the file to the present columns: a new file, renamed over the old one."""
        self._rows.close()
        rows = _read_rows(self._csv)
        self._replace([{**row} for row in rows])
        self._rows = self._csv.open("a", newline="", encoding="utf-8")

    def _replace(self, rows: Sequence[Mapping[str, str]]) -> None:
        temporary = self._csv.with_name("progress.csv.writing")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self._csv)

    def _truncate(self, resume_step: int | None) -> None:
        """Drops the rows beyond `resume_step`, and a last line that a kill has torn."""
        if resume_step is None or not self._csv.exists():
            return
        rows = [row for row in _read_rows(self._csv) if int(row["env_steps"]) <= resume_step]
        used = dict.fromkeys(tag for row in rows for tag, value in row.items() if value)
        with self._csv.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), ["env_steps"])
        self._columns = [tag for tag in header if tag in used] if rows else ["env_steps"]
        if rows:
            self._replace([{tag: row[tag] for tag in self._columns} for row in rows])
        else:
            self._csv.unlink()

    # Everything else ------------------------------------------------------------------------------

    def histogram(self, step: int, tag: str, values: np.ndarray, buckets: int = BUCKETS) -> None:
        """Records the distribution of the finite ones of `values`."""
        flat = np.asarray(values, np.float64).ravel()
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        counts, edges = np.histogram(flat, bins=buckets)
        triples = np.stack([edges[:-1], edges[1:], counts.astype(np.float64)], axis=1)
        metadata = histogram_metadata.create_summary_metadata(display_name="", description="")
        self._tensor(step, tag, triples, metadata)

    def text(self, step: int, tag: str, markdown: str) -> None:
        """Records a text in Markdown."""
        metadata = text_metadata.create_summary_metadata(display_name="", description="")
        self._tensor(step, tag, np.array([markdown.encode()], dtype=object), metadata)

    def animation(self, step: int, tag: str, frames: Sequence[np.ndarray], fps: float = 30.0) -> None:
        """Records frames [H, W, 3] uint8 as one animated image."""
        height, width = np.asarray(frames[0]).shape[:2]
        size = [str(width).encode(), str(height).encode()]
        metadata = image_metadata.create_summary_metadata(display_name="", description="")
        self._tensor(step, tag, np.array([*size, gif(frames, fps)], dtype=object), metadata)

    def summary(self, summary: Summary, step: int = 0) -> None:
        """Records a ready summary: a layout, hyper-parameters."""
        self._add(step, summary=summary)

    def _tensor(self, step: int, tag: str, value: np.ndarray, metadata: SummaryMetadata) -> None:
        tensor = tensor_util.make_tensor_proto(value)
        self._add(step, summary=Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]))

    def _add(self, step: int, **content: Any) -> None:
        if not self.folder.is_dir():
            raise RecordsError(f"{self.folder}: the run folder has vanished")
        try:
            self._events.add_event(Event(wall_time=time.time(), step=step, **content))
        except OSError as error:
            raise self._error(error) from error

    def flush(self) -> None:
        """Writes everything that is waiting."""
        self._write_row()
        try:
            self._events.flush()
        except OSError as error:
            raise self._error(error) from error

    def close(self) -> None:
        """Writes everything that is waiting, and closes the files."""
        try:
            self._write_row()
        finally:
            self._rows.close()
            self._events.close()

    def _error(self, error: OSError) -> RecordsError:
        return RecordsError(f"{self.folder}: the records cannot be written: {error.strerror or error}")


def gif(frames: Sequence[np.ndarray], fps: float = 30.0) -> bytes:
    """Returns frames [H, W, 3] uint8 as one animated GIF that repeats for ever."""
    first, *rest = [Image.fromarray(np.asarray(frame)) for frame in frames]
    buffer = io.BytesIO()
    duration = max(20, round(1000 / fps))  # browsers slow down what is faster than 50 frames a second
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    return buffer.getvalue()


def read_scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Reads all scalars of a run back, by TensorBoard's own reader: (step, value) pairs by tag."""
    accumulator = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 0})
    accumulator.Reload()
    series: dict[str, list[tuple[int, float]]] = {}
    for tag in accumulator.Tags()["tensors"]:
        plugin = accumulator.SummaryMetadata(tag).plugin_data.plugin_name
        if plugin == scalar_metadata.PLUGIN_NAME:
            series[tag] = [
                (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
                for event in accumulator.Tensors(tag)
            ]
    return series


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a CSV; a line without its end was torn by a kill and is not among them."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    return [row for row in rows if None not in row and None not in row.values()]


def _shortest(value: float | None) -> str:
    """The shortest text that reads back as the same float32, which is what the graph computes in."""
    if value is None:
        return ""
    single = struct.unpack("f", struct.pack("f", value))[0] if abs(value) < 3e38 else value
    return str(np.float32(value)) if single == value else repr(value)
