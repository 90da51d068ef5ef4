"""State to save, and faults of the system while it is saved."""

import os
from pathlib import Path

import numpy as np

TENSORS = {
    "kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "count": np.array(7),
    "on": np.array([True]),
}

METADATA = {"iteration": 3, "best": None, "window": [[1, -0.0, 500]], "text": 'é\x1f"\\'}


def state(step: int) -> dict[str, np.ndarray]:
    return {"weights": np.full((40, 50), step, np.float32), "step": np.array(step)}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes()) for n in a
    )


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# Faults while saving ------------------------------------------------------------------------------


def failing(original, at: int, error: BaseException, first=None):
    """`original`, but its call number `at` raises `error` (after doing `first` with its arguments)."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls != at:
            return original(*args, **kwargs)
        if first:
            first(*args)
        raise error

    return call


def half_written(descriptor: int, data: memoryview) -> None:
    os.pwrite(descriptor, data[: len(data) // 2], 0)


FOLDER_SYNC = [("open", 2, None), ("fsync", 2, None), ("close", 2, os.close)]

STEPS_OF_SAVING = [
    ("listdir", 1, None),
    ("open", 1, None),
    ("write", 1, None),
    ("write", 1, half_written),
    ("fsync", 1, None),
    ("close", 1, os.close),
    ("replace", 1, None),
    *FOLDER_SYNC,
]
