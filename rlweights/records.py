"""Records of a run: TensorBoard event files and `progress.csv`.

What a call has recorded is with the operating system when it returns, so a kill loses nothing; `flush` makes
it survive a power failure too.
"""

import contextlib
import csv
import errno
import io
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata
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
        folder: The run folder. It must exist.
        resume_step: The step from which a resumed run goes on. What was recorded beyond it is forgotten.

    Raises:
        RecordsError: Here and in every method: the disk is full, the folder is read-only or has vanished.
            Nothing can be recorded after that, but what was recorded before is intact.
    """

    def __init__(self, folder: str | Path, *, resume_step: int | None = None):
        self.folder = Path(folder)
        self._failure: RecordsError | None = None
        used = [*self.folder.glob(_Table.NAME), *self.folder.glob("events.out.tfevents.*")]
        if used and resume_step is None:
            raise RecordsError(f"{self.folder}: holds records already; resume that run, or take a new folder")
        self._open(-1 if resume_step is None else resume_step)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def write(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Records scalars at an environment step.

        Several calls for one step make one row. A step before the newest one means that the run went back
        (see `rewind`).

        Args:
            step: Environment steps so far.
            scalars: By tag. NaN and None stand for "nothing to say" and are left out.
        """
        kept = {tag: float(value) for tag, value in scalars.items() if value is not None and value == value}
        if step < self._table.newest:
            self.rewind(step - 1)
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in kept.items()]
        self.summary(Summary(value=values), step)
        with self._explained(self._table.path):
            self._table.write(step, {k: v for k, v in kept.items() if not k.startswith("time/")})

    def histogram(
        self,
        step: int,
        tag: str,
        values: np.ndarray,
        bound: float | None = None,
        buckets: int = BUCKETS,
    ) -> None:
        """Records how the finite ones of `values`, of any shape, are distributed; nothing if none are.

        Args:
            step: Environment steps so far.
            tag: Its name.
            values: What to count.
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

    def images(self, step: int, tag: str, frames: np.ndarray) -> None:
        """Records one picture [H, W, 3] or several [K, H, W, 3], uint8, side by side under one tag."""
        frames = np.asarray(frames)
        self._pictures(
            step, tag, frames.shape[-3:], [_png(f) for f in frames.reshape(-1, *frames.shape[-3:])]
        )

    def animation(self, step: int, tag: str, frames: Sequence[np.ndarray], fps: float = 30.0) -> None:
        """Records frames [H, W, 3] uint8 as one animated picture."""
        self._pictures(step, tag, np.shape(frames[0]), [gif(frames, fps)])

    def summary(self, summary: Summary, step: int = 0) -> None:
        """Records a ready summary: a layout, hyper-parameters."""
        self._add(Event(step=step, summary=summary))

    def rewind(self, step: int) -> None:
        """Forgets what was recorded beyond `step`: for a run that goes back to a checkpoint."""
        self.close()
        self._open(step)

    def flush(self) -> None:
        """Waits until everything recorded so far is on the disk."""
        for path in (self._events.path, self._table.path):
            with self._explained(path):
                _must_exist(path)
                _sync(path)

    def close(self) -> None:
        """Closes the files."""
        self._table.close()
        if self._failure is None:
            with self._explained(self._events.path):
                self._events.close()

    def _open(self, step: int) -> None:
        with self._explained(self.folder):
            self._events = _EventFile(self.folder, step)
            self._table = _Table(self.folder, step)

    def _pictures(self, step: int, tag: str, shape: Sequence[int], encoded: Sequence[bytes]) -> None:
        height, width = (str(size).encode() for size in shape[:2])
        self._tensor(step, tag, np.array([width, height, *encoded], dtype=object), image_metadata)

    def _tensor(self, step: int, tag: str, value: np.ndarray, plugin: Any) -> None:
        metadata: SummaryMetadata = plugin.create_summary_metadata(display_name="", description="")
        tensor = tensor_util.make_tensor_proto(value)
        self.summary(Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)]), step)

    def _add(self, event: Event) -> None:
        with self._explained(self._events.path):
            self._events.add(event)

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        """Turns what the file system says into one line, said again if asked to go on after it."""
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


class _EventFile:
    """A TensorBoard event file, the newest of its folder.

    It is written by TensorFlow's record writer: TensorBoard's own one computes checksums in Python (117 ms
    for a megabyte, against 0.5 ms), meets a full disk in a thread of its own, and names files by a clock that
    may have been set back since the run began, though readers take them in the order of their names.
    """

    NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..*")

    def __init__(self, folder: Path, resume_step: int):
        older = [match for path in folder.iterdir() if (match := self.NAME.fullmatch(path.name))]
        stamp = max([int(time.time()), *(int(match[1]) + 1 for match in older)])
        self.path = folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"
        for match in older:
            _trim(folder / match[0], resume_step)
        self._writer = tf.io.TFRecordWriter(str(self.path))
        self.add(Event(file_version="brain.Event:2"))
        # For a TensorBoard that looks on while a run is resumed; it takes the first START for no restart.
        self.add(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, event: Event) -> None:
        _must_exist(self.path)
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _trim(path: Path, step: int) -> None:
    """Takes from an event file what lies beyond `step`, ends of sessions, and a record torn by a kill.

    TensorBoard's readers do some of that when they meet the START of the next file, each in its own way:
    `EventAccumulator` keeps histograms, the data server keeps tags until they are written again.
    """
    temporary = path.with_name("records.trimmed")  # a name that readers of event files pass over
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            ends = any(value.tag == SESSION_END_INFO_TAG for value in event.summary.value)
            if event.step <= step and not ends:
                writer.write(record)
    if temporary.stat().st_size < path.stat().st_size:
        _sync(temporary)
        os.replace(temporary, path)
    else:
        temporary.unlink()


class _Table:
    """`progress.csv`: a row of scalars for each step, whole in the file after every call."""

    NAME = "progress.csv"

    def __init__(self, folder: Path, resume_step: int):
        self.path = folder / self.NAME
        columns, rows = ["env_steps"], []
        if self.path.exists():
            columns, rows = _rows_until(self.path, resume_step)
        self._columns = dict.fromkeys(columns)
        self._row = dict(zip(columns, rows[-1], strict=True)) if rows else {}
        self._file = self._replaced("".join(",".join(row) + "\n" for row in rows[:-1]))

    @property
    def newest(self) -> int:
        """The step of the last row."""
        return int(self._row.get("env_steps", -1))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds a row, or adds to the last one if that is of the same step."""
        _must_exist(self.path)
        if step != self.newest:
            self._start += len(self._line())
            self._row = {"env_steps": str(step)}
        self._row |= zip(scalars, _shortest(list(scalars.values())), strict=True)
        new = [tag for tag in scalars if tag not in self._columns]
        if new:
            self._file.seek(0)
            _, _, rows = self._file.read(self._start).decode().partition("\n")
            self._file.close()
            self._columns |= dict.fromkeys(new)
            self._file = self._replaced(rows.replace("\n", "," * len(new) + "\n"))
            return
        self._file.seek(self._start)
        line = self._line()
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._file.truncate()  # what a longer row of the same step has left

    def close(self) -> None:
        self._file.close()

    def _line(self) -> bytes:
        """The last row as it stands in the file."""
        if not self._row:
            return b""
        return (",".join([self._row.get(tag, "") for tag in self._columns]) + "\n").encode()

    def _replaced(self, rows: str) -> io.FileIO:
        """Renames a new file of the present columns, `rows` and the last row over the old one; opens it."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(self._columns)
        content = (text.getvalue() + rows).encode()
        self._start = len(content)
        temporary = self.path.with_name(f"{self.NAME}.writing")
        temporary.write_bytes(content + self._line())
        _sync(temporary)
        os.replace(temporary, self.path)
        return self.path.open("r+b", buffering=0)


def _rows_until(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Reads the columns and rows of a CSV as if nothing had ever been recorded beyond `step`.

    A line that was torn by a kill has no end and is not among them, nor are columns that only later rows
    have filled.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    header, *rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1]))) or [["env_steps"]]
    rows = [r for r in rows if len(r) == len(header) and r[0].isdecimal() and int(r[0]) <= step]
    used = [i for i in range(len(header)) if i == 0 or any(row[i] for row in rows)]
    return [header[i] for i in used], [[row[i] for i in used] for row in rows]


def _must_exist(path: Path) -> None:
    """Notices what writing to an open file does not: that nobody will find it again."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "it has vanished")


def _sync(path: Path) -> None:
    """Waits until what was written to a file, by whomever, is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _shortest(values: Sequence[float]) -> list[str]:
    """The shortest texts that read back as the same numbers, as float32 if that is what they are."""
    with np.errstate(over="ignore"):
        singles = np.array(values, np.float32)
    pairs = zip(singles, values, strict=True)
    return [min(str(s), repr(v), key=len) if float(s) == v else repr(v) for s, v in pairs]


def gif(frames: Sequence[np.ndarray], fps: float = 30.0) -> bytes:
    """Returns frames [H, W, 3] uint8 as one animated GIF that repeats for ever.

    All frames share the colors of four of them: a palette for each costs fifteen times as long. A frame is
    shown for half a second at most, and the film takes ten minutes at most, whatever `fps` says.
    """
    some = np.concatenate(frames[:: max(1, len(frames) // 4)])
    palette = Image.fromarray(some).quantize(256, dither=Image.Dither.NONE)
    first, *rest = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    buffer = io.BytesIO()
    # Milliseconds. Browsers slow down what is faster than 50 frames a second; and frames that are alike
    # become one, whose time must fit into 16 bits of hundredths of a second.
    duration = max(20, round(min(1_000 / fps, 500, 600_000 / len(frames))))
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=duration, loop=0, optimize=False)
    return buffer.getvalue()


def _png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def read_scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Reads all scalars of a run back, by TensorBoard's own reader: (step, value) pairs by tag."""
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
