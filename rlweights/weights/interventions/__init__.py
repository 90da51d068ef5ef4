"""Rules that rewrite weights inside the compiled training step."""

import difflib

from rlweights.weights.interventions.averaging import Averaging
from rlweights.weights.interventions.base import PLACEMENTS, Intervention
from rlweights.weights.interventions.clipping import Clipping
from rlweights.weights.interventions.configuration import snake_case
from rlweights.weights.interventions.continual_backpropagation import ContinualBackpropagation
from rlweights.weights.interventions.dropconnect import DropConnect
from rlweights.weights.interventions.feedback import Feedback
from rlweights.weights.interventions.freezing import Freezing
from rlweights.weights.interventions.increment import Increment
from rlweights.weights.interventions.lookahead import HareAndTortoise, Lookahead
from rlweights.weights.interventions.noise import AdaptiveNoise, Noise
from rlweights.weights.interventions.precision import Binarization, Clustering, Quantization
from rlweights.weights.interventions.projection import Projection
from rlweights.weights.interventions.pruning import Pruning
from rlweights.weights.interventions.recycling import Recycling
from rlweights.weights.interventions.schedule_free import ScheduleFree
from rlweights.weights.interventions.sharpness import SharpnessAware
from rlweights.weights.interventions.shrinkage import Shrinkage
from rlweights.weights.interventions.spectral import Orthogonal, SpectralNorm

RULES: dict[str, type[Intervention]] = {
    snake_case(rule.__name__): rule
    for rule in (
        *(Clipping, Projection, SpectralNorm, Orthogonal),
        *(Noise, AdaptiveNoise, DropConnect, Increment, SharpnessAware),
        *(Pruning, Freezing, Quantization, Binarization, Clustering),
        *(Averaging, Lookahead, HareAndTortoise, ScheduleFree),
        *(Shrinkage, Recycling, ContinualBackpropagation),
    )
}
"""The built-in rules by the name that agent files use, by subject."""


def get(name: str) -> type[Intervention]:
    """Returns the class of a built-in rule.

    Raises:
        ValueError: If there is none of that name; the message names the nearest.
    """
    if name in RULES:
        return RULES[name]
    nearest = difflib.get_close_matches(name, RULES, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"there is no rule {name!r}.{hint} Rules: {', '.join(RULES)}")


__all__ = [
    "PLACEMENTS",
    "RULES",
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
    "get",
]
