"""Rules together: orders in which one of them breaks what another one promises."""

import itertools
import warnings
from collections.abc import Sequence

from rlweights.weights.interventions.base import Intervention


def broken(rules: Sequence[Intervention]) -> list[str]:
    """Returns what an order of rules breaks, a sentence each; of rules that are bound to weights."""
    found = []
    for first, second in itertools.combinations(rules, 2):
        if not {id(v) for v in first.variables} & {id(v) for v in second.variables}:
            continue
        one, other = first.name, second.name
        if first.placement == second.placement == "after_step":
            if first.promise and not second.preserves(first.promise):
                found.append(f"the {first.promise} of {one} does not survive {other}, which acts behind it")
            elif second.promise == "bound" and first.evaluates:
                found.append(f"what {one} keeps is out of the bound of {other}, which acts behind it")
        if first.evaluates and second.evaluates:
            found.append(f"evaluations see what {other} keeps, and never what {one} does")
        if first.exports and second.exports:
            found.append(f"{other} rounds what {one} has rounded, and has the last word")
    return found


def warn(rules: Sequence[Intervention]) -> None:
    """Warns of orders of rules in which one of them breaks what another one promises."""
    for each in broken(rules):
        warnings.warn(f"{each}. Change the order of the rules, or leave one of them out", stacklevel=2)
