"""rlweights: policy-gradient agents for Gymnasium on Keras 3, with weight interventions inside them.

Names are imported on first use, so that `python -m rlweights.train --help` need not wait for TensorFlow.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from rlweights import renamed
from rlweights.backend import TENSORFLOW, check_backend, check_packages, choose_backend, configure

if TYPE_CHECKING:
    from rlweights import testing
    from rlweights.errors import (
        BackendError,
        BrokenEnvironment,
        CallbackError,
        CheckpointError,
        ConfigError,
        RecordsError,
        RunLockedError,
        TrainingStopped,
    )
    from rlweights.learning.environments import Draw, Environment
    from rlweights.running.callbacks import Callback, StopAtReturn
    from rlweights.running.recipe import Recipe
    from rlweights.running.trained import TrainedAgent
    from rlweights.weights.attachment import attach, strip
    from rlweights.weights.batch_statistics import renew_batch_statistics
    from rlweights.weights.callbacks import WeightMonitor
    from rlweights.weights.interventions import (
        AdaptiveNoise,
        Averaging,
        Binarization,
        Clipping,
        Clustering,
        ContinualBackpropagation,
        DropConnect,
        Feedback,
        Freezing,
        HareAndTortoise,
        Increment,
        Intervention,
        Lookahead,
        Noise,
        Orthogonal,
        Projection,
        Pruning,
        Quantization,
        Recycling,
        ScheduleFree,
        SharpnessAware,
        Shrinkage,
        SpectralNorm,
    )
    from rlweights.weights.layers import Part, parts_of
    from rlweights.weights.optimizer import InterventionOptimizer
    from rlweights.weights.selection import (
        depth,
        everything,
        kernels,
        kernels_and_biases,
        kind,
        layers,
        path,
        select,
    )

__version__ = "0.1.0"

check_packages()
renamed.install()

_HOMES = {
    "rlweights.errors": (
        "BackendError",
        "BrokenEnvironment",
        "CallbackError",
        "CheckpointError",
        "ConfigError",
        "RecordsError",
        "RunLockedError",
        "TrainingStopped",
    ),
    "rlweights.learning.environments": ("Draw", "Environment"),
    "rlweights.running.callbacks": ("Callback", "StopAtReturn"),
    "rlweights.running.recipe": ("Recipe",),
    "rlweights.running.trained": ("TrainedAgent",),
    "rlweights.weights.attachment": ("attach", "strip"),
    "rlweights.weights.callbacks": ("WeightMonitor",),
    "rlweights.weights.batch_statistics": ("renew_batch_statistics",),
    "rlweights.weights.interventions": (
        "AdaptiveNoise",
        "Averaging",
        "Binarization",
        "Clipping",
        "Clustering",
        "ContinualBackpropagation",
        "DropConnect",
        "Feedback",
        "Freezing",
        "HareAndTortoise",
        "Increment",
        "Intervention",
        "Lookahead",
        "Noise",
        "Orthogonal",
        "Projection",
        "Pruning",
        "Quantization",
        "Recycling",
        "ScheduleFree",
        "SharpnessAware",
        "Shrinkage",
        "SpectralNorm",
    ),
    "rlweights.weights.layers": ("Part", "parts_of"),
    "rlweights.weights.optimizer": ("InterventionOptimizer",),
    "rlweights.weights.selection": (
        *("depth", "everything", "kernels", "kernels_and_biases", "kind", "layers", "path", "select"),
    ),
}
_MODULES = ("testing",)
_ON_ANY_BACKEND = ("rlweights.weights.", "rlweights.testing")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptiveNoise",
    "Averaging",
    "BackendError",
    "Binarization",
    "BrokenEnvironment",
    "Callback",
    "CallbackError",
    "CheckpointError",
    "Clipping",
    "Clustering",
    "ConfigError",
    "ContinualBackpropagation",
    "Draw",
    "DropConnect",
    "Environment",
    "Feedback",
    "Freezing",
    "HareAndTortoise",
    "Increment",
    "Intervention",
    "InterventionOptimizer",
    "Lookahead",
    "Noise",
    "Orthogonal",
    "Part",
    "Projection",
    "Pruning",
    "Quantization",
    "Recipe",
    "RecordsError",
    "Recycling",
    "RunLockedError",
    "ScheduleFree",
    "SharpnessAware",
    "Shrinkage",
    "SpectralNorm",
    "StopAtReturn",
    "TrainedAgent",
    "TrainingStopped",
    "WeightMonitor",
    "attach",
    "depth",
    "everything",
    "kernels",
    "kernels_and_biases",
    "kind",
    "layers",
    "parts_of",
    "path",
    "renew_batch_statistics",
    "select",
    "strip",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rlweights' has no attribute {name!r}")
    home = _HOME_OF.get(name, f"rlweights.{name}")
    if home != "rlweights.errors":
        if not home.startswith(_ON_ANY_BACKEND):
            check_backend()
        if choose_backend() == TENSORFLOW and TENSORFLOW not in sys.modules:
            configure()  # before anything imports TensorFlow, so that its greetings are not seen
    if name in _MODULES:
        return importlib.import_module(f"rlweights.{name}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
