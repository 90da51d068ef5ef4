"""Judges runs by the table of symptoms: which ones they show, and which of these came first."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.config.schema import Agent
from rlweights.running.diagnosis import causes, courses
from rlweights.running.diagnosis.record import FEWEST, RETURN, NotRecorded, RunRecord
from rlweights.running.diagnosis.table import RANKS, SYMPTOMS, Sign, Symptom

__all__ = ["Diagnosis", "Finding", "causes", "courses", "diagnose", "is_final", "judge", "shown"]

GUIDE = "docs/tensorboard.md"


@dataclass(frozen=True)
class Finding:
    """One symptom that a run shows.

    Attributes:
        symptom: Its name.
        kind: "cause", "mechanism", "harm" or "note".
        text: What is seen, with the run's numbers.
        since: The environment step from which on it is so.
        causes: What may be behind it, most frequent first.
        advice: What to try: `key=value` as `--set` takes it, each accepted by this agent's file.
        confused: What looks alike and is no fault; "" if nothing does.
        guide: Where the documentation explains its scalars.
        study: The study that supports the advice; "" if none does.
    """

    symptom: str
    kind: str
    text: str
    since: int
    causes: tuple[str, ...]
    advice: tuple[str, ...]
    confused: str
    guide: str
    study: str


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a run.

    Attributes:
        run: Its folder.
        env_steps: How far it has come.
        used: The part of its budget that is used up.
        findings: The first is what came first; its consequences follow.
        unjudged: Symptoms that could not be judged, each with the scalar that is missing.
    """

    run: str
    env_steps: int
    used: float
    findings: tuple[Finding, ...]
    unjudged: Mapping[str, str]

    @property
    def healthy(self) -> bool:
        """Whether there is nothing but notes."""
        return all(each.kind == "note" for each in self.findings)

    @property
    def final(self) -> bool:
        """Whether this is a verdict: before half of the budget everything is a note."""
        return is_final(self.used)

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        return asdict(self) | {"healthy": self.healthy, "final": self.final}


def is_final(used: float) -> bool:
    """Returns whether a run has used enough of its budget for a verdict."""
    return used >= 0.5


def judge(run: RunRecord) -> Diagnosis:
    """Returns the diagnosis of what a run has recorded."""
    found, unjudged = shown(run)
    findings = tuple(_finding(run, symptom, sign) for symptom, sign in found)
    return Diagnosis(run.name, run.env_steps, run.used, findings, unjudged)


def shown(run: RunRecord) -> tuple[list[tuple[Symptom, Sign]], dict[str, str]]:
    """Asks for every symptom of the table.

    A symptom that is not told alone counts only where the return has come to harm. Causes come before the
    mechanisms by which they act, and these before the harm; among each, what began first comes first.

    Returns:
        The symptoms that the run shows, in that order; and those that could not be judged, each with the
        scalar that is missing.
    """
    found: list[tuple[Symptom, Sign]] = []
    unjudged: dict[str, str] = {}
    harmed = run.harm is not None
    for symptom in SYMPTOMS:
        if not (harmed or symptom.alone):
            continue
        try:
            sign = symptom.condition(run)
        except NotRecorded as missing:
            if _applies(run, str(missing)):
                unjudged[symptom.name] = str(missing)
            continue
        if sign is not None:
            found.append((symptom, sign))
    # Sorting keeps the order of the table among those that came at the same time.
    found.sort(key=lambda each: (RANKS[each[0].kind], _stretch(run, each[1].since)))
    return found, unjudged


_OF_SOME = ("intervention/", "weights/", "rollout/action_", "rollout/observation_", "train/std", "eval/")
_OF_SOME += ("train/entropy_fraction",)
"""How scalars begin that only some agents have: those of a rule, a kind of actions or observations."""


def _applies(run: RunRecord, tag: str) -> bool:
    """Whether a scalar that is missing could be there: runs of version 0.1 lack some that all others have."""
    whole = "rollout/return_std" in run.table and len(run.table["rollout/return_std"].steps) >= FEWEST
    return not (whole and tag.startswith(_OF_SOME))


def _stretch(run: RunRecord, step: int) -> int:
    """In which tenth of the run a step lies: closer than that, nothing came first."""
    return int(10 * step / max(run.env_steps, 1))


def _finding(run: RunRecord, symptom: Symptom, sign: Sign) -> Finding:
    return Finding(
        symptom.name,
        symptom.kind,
        symptom.told(sign),
        sign.since,
        symptom.causes,
        tuple(each for each in symptom.advice(run.agent) if _is_accepted(run.agent, each)),
        symptom.confused,
        f"{GUIDE}#{symptom.chart}",
        symptom.study,
    )


def _is_accepted(agent: Agent, text: str) -> bool:
    """Whether `--set` takes it for this agent, and it changes something."""
    data = agent.model_dump(by_alias=True, exclude_none=True)
    try:
        return agent_file.parse(data, "advice", [text]) != agent
    except ConfigError:
        return False


def diagnose(run: str | Path) -> Diagnosis:
    """Judges one run by what it has recorded; no code of the user's own is loaded.

    Raises:
        ConfigError: If it is no run folder, or has recorded too little.
    """
    return judge(RunRecord.of(Path(run)))


def seeds_apart(runs: Sequence[RunRecord]) -> str:
    """Says in one line whether seeds of one agent end far apart; "" if they do not, or are too few."""
    lasts = [run.series(RETURN).last for run in runs if run.has(RETURN)]
    if len(lasts) < 3:
        return ""
    spread, size = float(np.ptp(lasts)), abs(float(np.mean(lasts)))
    if spread <= 0.5 * size:
        return ""
    return (
        f"{len(lasts)} seeds end between {min(lasts):,.4g} and {max(lasts):,.4g}: a single one says little; "
        f"compare five and more"
    )
