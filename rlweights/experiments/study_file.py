"""Study files: a question, arms that answer it, and what is measured; TOML in, trials out."""

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic.types import FiniteFloat

from rlweights.errors import ConfigError
from rlweights.experiments.workers import Trial
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.config.messages import choices, explained, nearest, refusal
from rlweights.running.config.schema import Agent, Section, Seed
from rlweights.running.recipe import Recipe

STUDIES = agent_file.PACKAGE / "_studies"
if not STUDIES.is_dir():  # a checkout, where the studies lie beside the package
    STUDIES = agent_file.PACKAGE.parent / "studies"

RESULTS = agent_file.PACKAGE.parent / "docs" / "studies"
"""Committed results, in a checkout."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*")

_UNTOUCHED = {"checkpoint", "description", "expect", "seed"}
"""Keys of an agent that do not tell one arm from another."""


class Arm(Section):
    """One of the things that are compared: what differs from the study's agent."""

    agent: str | None = Field(default=None, description="Another agent instead of the study's.")
    set: dict[str, Any] = Field(default={}, description="Settings that differ, by their keys.")
    rules: list[dict[str, Any]] | None = Field(
        default=None, description="The interventions; left out: those of study and agent."
    )
    baseline: str | None = Field(
        default=None, description="The arm that it is compared with; left out: the study's."
    )


class Measure(Section):
    """One number for each trial, from the rows of a scalar in its records."""

    title: str = Field(description="What it is called in tables.")
    tag: str = Field(description="The scalar.")
    take: Literal["mean", "last", "max", "share_at_least", "share_below", "first_step_at_least"] = Field(
        default="mean",
        description="Of its rows; the mean of equally spaced rows is the normalised area under the curve.",
    )
    after: Annotated[FiniteFloat, Field(ge=0.0, lt=1.0)] = Field(
        default=0.0, description="Share of the run before which rows do not count."
    )
    threshold: FiniteFloat | None = Field(default=None, description="What shares and first steps ask for.")
    over_seeds: Literal["interquartile_mean", "mean", "standard_deviation"] = Field(
        default="interquartile_mean",
        description="Of the seeds: mean where each is 0 or 1, so that it is their share; the deviation where "
        "it is asked how far seeds differ.",
    )
    lower_is_better: bool = Field(default=False, description="Whether the smaller number wins.")

    @model_validator(mode="after")
    def _whole(self) -> "Measure":
        needs = self.take.endswith(("_at_least", "_below"))
        if needs != (self.threshold is not None):
            why = "needs a threshold" if needs else "takes no threshold"
            raise ValueError(f"measures: {self.title!r}: take = {self.take!r} {why}")
        return self


class StudyFile(Section):
    """A study file."""

    question: Annotated[str, Field(min_length=1)] = Field(description="What is asked, in words.")
    agent: str = Field(description="Name of a shipped agent, or a file beside the study.")
    set: dict[str, Any] = Field(default={}, description="Settings of all arms, by their keys.")
    rules: list[dict[str, Any]] | None = Field(
        default=None, description="Interventions of all arms that name none; left out: the agent's."
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="Seeds, in the order of training.")
    baseline: str = Field(description="The arm that the others are compared with.")
    measures: Annotated[list[Measure], Field(min_length=1)] = Field(
        description="What is measured; the first one decides."
    )
    curve: str = Field(default="rollout/ep_rew_mean", description="The scalar of the picture.")
    picture: list[str] = Field(default=[], description="Arms in the picture; left out: all.")
    scales: list[str] = Field(
        default=["budget.total_timesteps"], description="Whole numbers that --scale multiplies."
    )
    arms: Annotated[dict[str, Arm], Field(min_length=1)] = Field(description="What is compared, by name.")

    @model_validator(mode="after")
    def _consistent(self) -> "StudyFile":
        for name in self.arms:
            if not _NAME.fullmatch(name):
                raise ValueError(f"arms.{name}: a name has small letters, digits and _ . + - only")
        named = {"baseline": [self.baseline], "picture": self.picture}
        named |= {f"arms.{name}.baseline": [arm.baseline] for name, arm in self.arms.items() if arm.baseline}
        for key, names in named.items():
            for name in names:
                if name not in self.arms:
                    raise ValueError(f"{key} = {name!r}: is no arm.{choices(name, self.arms)}")
        for key, found in (("seeds", self.seeds), ("measures", [each.title for each in self.measures])):
            twice = next((each for each in found if found.count(each) > 1), None)
            if twice is not None:
                raise ValueError(f"{key}: {twice!r} stands there twice")
        return self

    def compared_with(self, arm: str) -> str | None:
        """Returns the arm that an arm is compared with; None for one that others are compared with."""
        if arm in (self.baseline, *(each.baseline for each in self.arms.values())):
            return None
        return self.arms[arm].baseline or self.baseline


class Plan:
    """A study that can be run: its file, and the trials that follow from it.

    Args:
        study: Name of a shipped study, or a study file.
        scale: Factor of the study's `scales`: 0.1 makes it about ten times as short.
        first_seed: As many seeds from this one on instead of the study's: to see whether its answer holds.

    Attributes:
        name: The file's, with the scale where it is not 1, and the first seed where one is given.
        file: The validated contents.
        path: Where it lies.
        scale: The factor.

    Raises:
        ConfigError: If there is no such study, it is not valid, or an arm cannot be trained; one line that
            names file, key, what came, and what is valid.
    """

    def __init__(self, study: str | Path, scale: float = 1.0, first_seed: int | None = None):
        if not 0.0 < scale <= 1.0:
            raise ConfigError(f"--scale {scale:g}: must be more than 0, and 1 at most")
        self.path = find(str(study))
        self.scale = scale
        self.name = self.path.stem if scale == 1.0 else f"{self.path.stem}-x{scale:g}"
        self.file = _load(self.path)
        self.first_seed = first_seed
        if first_seed is not None:
            count = len(self.file.seeds)
            if not 0 <= first_seed <= 2**31 - count:
                raise ConfigError(
                    f"--first-seed {first_seed}: must be 0 at least, and {2**31 - count} at most"
                )
            self.name += f"-from-{first_seed}"
            seeds = list(range(first_seed, first_seed + count))
            self.file = self.file.model_copy(update={"seeds": seeds})
        self._recipes, self._agents = {}, {}
        for name, arm in self.file.arms.items():
            self._agents[name] = self._recipe(name, arm, _as_it_is).agent
            self._recipes[name] = self._recipe(name, arm, self._beside)

    def trial(self, arm: str, seed: int, folder: Path) -> Trial:
        """Returns the trial of an arm and a seed, in its run folder `<arm>/<seed>`, on one thread."""
        recipe = self._recipes[arm]
        overrides = (*recipe.overrides, f"seed={seed}")
        source = recipe.source
        return Trial(
            f"{arm}, seed {seed}", source, None, overrides, folder=folder / arm / str(seed), threads=1
        )

    def agent(self, arm: str) -> Agent:
        """Returns the validated agent of an arm."""
        return self._recipes[arm].agent

    def check(self, arm: str) -> None:
        """Puts the agent of an arm together and throws it away: rules and environments judge their arguments.

        Raises:
            ConfigError: If it cannot be trained.
        """
        recipe = self._recipes[arm]
        try:
            Assembly(recipe.agent, recipe.source, recipe.folder)
        except ConfigError as error:
            raise ConfigError(f"{self.path}: arms.{arm}: {error}") from None

    def digest(self, arm: str) -> str:
        """Returns what tells the trials of an arm from those of another study: of the agent and the measures.

        Defaults are not part of it: a setting that is new in a later version changes no digest.
        """
        return self._digests[arm]

    @cached_property
    def _digests(self) -> dict[str, str]:
        measured = [each.model_dump(exclude_defaults=True) for each in self.file.measures]
        digests = {}
        for name, agent in self._agents.items():  # paths of this machine are no part of a digest
            agent = agent.model_dump(by_alias=True, exclude_defaults=True, exclude=_UNTOUCHED)
            text = json.dumps([agent, measured, self.file.curve], sort_keys=True)
            digests[name] = hashlib.sha256(text.encode()).hexdigest()[:12]
        return digests

    def _recipe(self, name: str, arm: Arm, located: Callable[[str], str]) -> Recipe:
        """The recipe of an arm; `located` says where a rule's own file lies."""
        study = self.file
        changes: dict[str, Any] = dict(study.set)
        rules = study.rules if arm.rules is None else arm.rules
        if rules is not None:
            changes["interventions"] = [
                {k: located(v) if k == "rule" else v for k, v in rule.items()} for rule in rules
            ]
        changes |= arm.set
        try:
            recipe = Recipe(self._agent(arm.agent or study.agent), changes)
            recipe = recipe.changed(self._scaled(recipe.agent))
            return recipe.changed({"seed": study.seeds[0]})
        except ConfigError as error:
            raise ConfigError(f"{self.path}: arms.{name}: {error}") from None

    def _beside(self, rule: str) -> str:
        """A rule's own file beside the study, wherever it is called from."""
        return str(self.path.parent.resolve() / rule) if ".py:" in str(rule) else rule

    def _agent(self, name: str) -> str:
        beside = self.path.parent / name
        return str(beside) if beside.suffix == ".toml" and beside.is_file() else name

    def _scaled(self, agent: Agent) -> dict[str, int]:
        """The study's `scales` at its scale, by key."""
        if self.scale == 1.0:
            return {}
        data = agent.model_dump(by_alias=True)
        scaled = {}
        for key in self.file.scales:
            value: Any = data
            for part in key.split("."):
                place: Any = int(part) if isinstance(value, list) and part.isdecimal() else part
                try:
                    value = value[place]
                except (KeyError, IndexError, TypeError):
                    raise ConfigError(f"scales: the agent has no {key!r}") from None
            if not isinstance(value, int):
                raise ConfigError(f"scales: {key} = {value!r} is no whole number")
            least = agent.steps_per_iteration if key == "budget.total_timesteps" else 1
            scaled[key] = max(least, round(value * self.scale)) if value else 0
        return scaled


def _as_it_is(rule: str) -> str:
    return rule


def shipped() -> dict[str, Path]:
    """Returns the studies that come with the package, by name."""
    return {path.stem: path for path in sorted(STUDIES.glob("*.toml"))}


def find(name: str) -> Path:
    """Returns the path of a study: a file, or the name of a shipped study.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    path = Path(name)
    if path.suffix == ".toml":
        if path.is_file():
            return path
        raise ConfigError(f"{name}: no such file")
    known = shipped()
    if name in known:
        return known[name]
    raise ConfigError(f"{name!r} is no study.{nearest(name, known)} Studies: {', '.join(known)}")


def _load(path: Path) -> StudyFile:
    try:
        data: Mapping[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        return StudyFile.model_validate(data)
    except ValidationError as error:
        raise explained(error, data, str(path), StudyFile) from None


def chosen_arms(plan: Plan, names: list[str]) -> list[str]:
    """Returns arms in the order of the study: those that are named, or all.

    Raises:
        ConfigError: If one is no arm.
    """
    arms = plan.file.arms
    for name in names:
        if name not in arms:
            raise refusal(str(plan.path), "--arms", name, "is no arm", hint=choices(name, arms))
    return [name for name in arms if not names or name in names]
