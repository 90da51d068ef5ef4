"""Rules that rewrite weights inside the compiled training step."""

import difflib

from rlweights.weights.interventions.averaging import Averaging
from rlweights.weights.interventions.base import PLACEMENTS, Intervention
from rlweights.weights.interventions.clipping import Clipping
from rlweights.weights.interventions.configuration import snake_case
from rlweights.weights.interventions.feedback import Feedback
from rlweights.weights.interventions.increment import Increment
from rlweights.weights.interventions.noise import AdaptiveNoise, Noise
from rlweights.weights.interventions.projection import Projection
from rlweights.weights.interventions.pruning import Pruning
from rlweights.weights.interventions.recycling import Recycling
from rlweights.weights.interventions.shrinkage import Shrinkage

RULES: dict[str, type[Intervention]] = {
    snake_case(rule.__name__): rule
    for rule in (
        *(Clipping, Projection, Noise, AdaptiveNoise, Increment, Shrinkage, Recycling, Averaging),
        *(Pruning,),
    )
}
"""The built-in rules by the name that agent files use."""


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
    "Clipping",
    "Feedback",
    "Increment",
    "Intervention",
    "Noise",
    "Projection",
    "Pruning",
    "Recycling",
    "Shrinkage",
    "get",
]
