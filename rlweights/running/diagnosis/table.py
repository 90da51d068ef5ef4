"""The table of symptoms that a run may show: what a row of it is.

A condition is a pure function of what a run has recorded. Limits are relative wherever they can be: a KL
divergence of 0.3 belonged to the best HalfCheetah that was measured, so mechanisms are told only beside harm
to the return, unless the table says `alone`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlweights.running.config.schema import Agent
from rlweights.running.diagnosis.record import RunRecord, ScalarSeries
from rlweights.weights.arrays import Array

Kind = Literal["cause", "mechanism", "harm", "note"]
"""A cause can be changed; a mechanism is how it acts; harm is what comes of it; a note asks for nothing."""


@dataclass(frozen=True)
class Sign:
    """A condition that holds.

    Attributes:
        since: The environment step from which on it does.
        numbers: For the sentence.
    """

    since: int
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Symptom:
    """One row of the table.

    Attributes:
        name: Its name.
        kind: See `Kind`.
        sentence: What is seen, with the run's own numbers in braces.
        condition: None where the run does not show it.
        causes: What may be behind it, most frequent first.
        advice: From the agent to what to try: `key=value` as `--set` takes it.
        confused: What looks alike and is no fault.
        chart: The heading of docs/tensorboard.md that explains its scalars.
        study: The study that supports the advice, if one does.
        alone: Whether it is told without harm to the return.
    """

    name: str
    kind: Kind
    sentence: str
    condition: Callable[[RunRecord], Sign | None]
    causes: tuple[str, ...] = ()
    advice: Callable[[Agent], Sequence[str]] = lambda agent: ()
    confused: str = ""
    chart: str = "learning"
    study: str = ""
    alone: bool = False

    def told(self, sign: Sign) -> str:
        """Returns the sentence with the numbers of a sign."""
        return self.sentence.format(**{"since": sign.since, **sign.numbers})


def lasting(series: ScalarSeries, holds: Array, **numbers: Any) -> Sign | None:
    """Returns the sign of a condition that holds in a series and still does, see `ScalarSeries.since`.

    Args:
        series: The series.
        holds: Whether the condition does, for each row.
        **numbers: For the sentence.
    """
    since = series.since(holds)
    return None if since is None else Sign(since, numbers)


def first_of(signs: Iterable[Sign | None]) -> Sign | None:
    """Returns the first sign that there is; of several rules or layers one is enough."""
    return next((sign for sign in signs if sign is not None), None)


RANKS = {"cause": 0, "mechanism": 1, "harm": 2, "note": 3}
"""In which order kinds are told."""

SYMPTOMS: list[Symptom] = []
"""The table. Of signs that came at the same time, the one that stands first here is told first."""


def symptom(kind: Kind, sentence: str, **columns: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a row of the table of the condition that follows; its name is the function's."""

    def add(condition: Callable[[RunRecord], Sign | None]) -> Callable[[RunRecord], Sign | None]:
        SYMPTOMS.append(Symptom(condition.__name__.strip("_"), kind, sentence, condition, **columns))
        return condition

    return add
