"""TensorBoard event files of a run: written, trimmed when it goes back, and read."""

import os
import re
import socket
import time
from pathlib import Path

import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams.metadata import SESSION_END_INFO_TAG

from rlweights.errors import ConfigError
from rlweights.running import files


class EventFile:
    """A TensorBoard event file, the newest of its folder.

    It is written by TensorFlow's record writer: TensorBoard's computes checksums in Python (117 ms for a
    megabyte, against 0.5 ms), meets a full disk in another thread, and names files by a clock that may have
    been set back since the run began, though readers take them in the order of their names.
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
        """Writes an event, stamped with the present time."""
        files.must_exist(self.path)
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def _trim(path: Path, step: int) -> None:
    """Removes the events beyond `step`, ends of sessions, and a record torn by a kill from an event file.

    TensorBoard's readers do some of that when they meet the START of the next file, each in its own way:
    `EventAccumulator` keeps histograms, the data server keeps tags until they are written again.
    """
    temporary = path.with_name("records.trimmed")  # a name that readers of event files pass over
    with tf.io.TFRecordWriter(str(temporary)) as writer:
        files.must_be_regular(path)
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            ends = any(value.tag == SESSION_END_INFO_TAG for value in event.summary.value)
            if event.step <= step and not ends:
                writer.write(record)
    if temporary.stat().st_size < path.stat().st_size:
        files.replace(temporary, path)
    else:
        temporary.unlink()


def read_scalars(folder: str | Path) -> dict[str, list[tuple[int, float]]]:
    """Returns all scalars of a run, read by TensorBoard's reader: (step, value) pairs by tag.

    Raises:
        ConfigError: If an event file is a pipe or a folder, for which the reader would wait.
    """
    for path in Path(folder).glob("*tfevents*"):
        try:
            files.must_be_regular(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
