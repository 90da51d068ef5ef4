"""rlweights: policy-gradient agents for Gymnasium on Keras 3, and the weight interventions inside them.

Names are imported on first use, so that `python -m rlweights.train --help` need not wait for TensorFlow.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlweights import testing
    from rlweights.callbacks import WeightMonitor
    from rlweights.interventions import (
        AdaptiveNoise,
        Averaging,
        Clipping,
        Feedback,
        Increment,
        Intervention,
        Noise,
        Projection,
        Recycling,
        Shrinkage,
    )
    from rlweights.optimizer import InterventionOptimizer
    from rlweights.recipe import Recipe
    from rlweights.selection import depth, everything, kind, layers, path, select
    from rlweights.trained import TrainedAgent

__version__ = "0.1.0"

_HOMES = {
    "rlweights.interventions": (
        "AdaptiveNoise",
        "Averaging",
        "Clipping",
        "Feedback",
        "Increment",
        "Intervention",
        "Noise",
        "Projection",
        "Recycling",
        "Shrinkage",
    ),
    "rlweights.callbacks": ("WeightMonitor",),
    "rlweights.optimizer": ("InterventionOptimizer",),
    "rlweights.recipe": ("Recipe",),
    "rlweights.trained": ("TrainedAgent",),
    "rlweights.selection": ("depth", "everything", "kind", "layers", "path", "select"),
}
_MODULES = ("testing",)
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptiveNoise",
    "Averaging",
    "Clipping",
    "Feedback",
    "Increment",
    "Intervention",
    "InterventionOptimizer",
    "Noise",
    "Projection",
    "Recipe",
    "Recycling",
    "Shrinkage",
    "TrainedAgent",
    "WeightMonitor",
    "depth",
    "everything",
    "kind",
    "layers",
    "path",
    "select",
    "testing",
]


class BackendError(RuntimeError):
    """Keras is configured for a backend other than TensorFlow."""


def check_backend() -> None:
    """Makes Keras use TensorFlow.

    Raises:
        BackendError: If it has been told to use another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise BackendError(
            f"rlweights runs on Keras' TensorFlow backend, but KERAS_BACKEND is {backend!r}; "
            f"unset it or set KERAS_BACKEND=tensorflow"
        )


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'rlweights' has no attribute {name!r}")
    check_backend()
    if name in _MODULES:
        return importlib.import_module(f"rlweights.{name}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
