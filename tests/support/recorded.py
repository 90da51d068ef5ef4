"""Records of a run, and how they are read back."""

import csv
import math
import time
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.util import tensor_util

from rlweights.running.records.records import Records

CSV = "progress.csv"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / CSV).open(newline="") as file:
        return list(csv.DictReader(file))


def tensors_of(folder: Path, tag: str) -> dict[int, np.ndarray]:
    """The tensors of a tag by step; fails if a step is there twice."""
    events = EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()
    found = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
    assert len(dict(found)) == len(found)
    return dict(found)


def newest_event_file(folder: Path) -> Path:
    return max(folder.glob("events.out.tfevents.*"))


def record(records: Records, steps, offset: float = 0.0) -> None:
    """What a run does: a row each step, sometimes an evaluation, a histogram, a late column."""
    for step in steps:
        row = {"train/loss": step / 3 + offset, "rollout/ep_rew_mean": math.nan if step < 3 else 0.1 * step}
        records.write(step, row | {"time/fps": time.perf_counter()})
        if step % 4 == 0:
            records.histogram(step, "kernel", np.arange(9.0) * step + offset)
            records.write(step, {"eval/mean_reward": -1.5 * step + offset})


# Everything else ----------------------------------------------------------------------------------


def pictures(count: int, height: int = 20, width: int = 30) -> list[np.ndarray]:
    """Frames in which a red square walks over a blue ground."""
    frames = np.zeros([count, height, width, 3], np.uint8)
    frames[..., 2] = 200
    for i, frame in enumerate(frames):
        frame[5:9, i : i + 4] = (250, 10, 10)
    return list(frames)
