"""What the console says of a training session: what is trained before it, and what came of it after."""

import shlex
import signal
from pathlib import Path

from rlweights.backend import cores, device
from rlweights.learning.environments.action_masks import NAMES
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import objects
from rlweights.running.config.schema import Agent
from rlweights.running.outcome import Outcome


def header(assembly: Assembly, evaluations: str, name: str, run: Path) -> list[str]:
    """Returns the lines that say what is going to be trained, and whose code was loaded for it.

    Args:
        assembly: The agent.
        evaluations: What will be evaluated, in words; "" if nothing is.
        name: Names the agent.
        run: The run folder.
    """
    agent = assembly.agent
    section, algorithm = agent.environment, agent.algorithm
    rollout, total = f"{section.num_envs} x {algorithm.n_steps} steps", agent.total_iterations
    steps, asked = total * agent.steps_per_iteration, agent.budget.total_timesteps
    rounded = "" if steps == asked else f": whole iterations of the {asked:,} asked for"
    own = own_steps(assembly)
    if own is not None and FAR * steps < own:
        rounded += f"; the agent's own budget is {own:,}"
    settings = getattr(assembly.source, "settings", "")
    normalized = [word for word in ("observations", "rewards") if getattr(section, f"normalize_{word}")]
    lines = [
        f"agent        {name}, seed {agent.seed}",
        *([f"settings     {settings}"] if settings else []),
        f"environment  {section.id} ({section.backend}, {rollout} an iteration)",
        *_masks(assembly),
        f"normalized   {' and '.join(normalized) or 'nothing'}",
        f"algorithm    {algorithm.name.upper()}, {assembly.optimizer.inner.name}",
        f"budget       {steps:,} steps{rounded}",
    ]
    lines += [
        f"{'rules' if i == 0 else '':13}{rule.describe()}" for i, rule in enumerate(assembly.rules)
    ] or ["rules        none"]
    lines += [
        f"evaluation   {evaluations or 'none'}",
        f"device       {device()}; {_threads(assembly.threads)}",
    ]
    given = objects.references(
        {"environment": section.model_dump(), "evaluation": agent.evaluation.model_dump()}
    )
    lines += [
        f"object       {key} is {objects.name_of(text)}, given from Python: the run keeps only its name"
        for key, text in given.items()
    ]
    lines += [f"code         {file} was loaded: the agent file names it" for file in assembly.files.loaded]
    return [*lines, f"run          {run}"]


def _threads(number: int) -> str:
    return "1 thread an operation" if number == 1 else f"{number} threads an operation"


def threads_remarks(assembly: Assembly, recorded: int | None) -> list[str]:
    """Returns what is worth a line of the number of threads.

    Args:
        assembly: The agent.
        recorded: With how many the run was trained so far; None: it is new, or does not say.
    """
    number, there = assembly.threads, cores()
    if recorded is not None and recorded != number:
        return [
            f"warning: the run was trained with {_threads(recorded)}, and goes on with {number}: this "
            f"process was told so or has begun with it. The last bits of large products will be others"
        ]
    if number > there:
        held = "1 core" if there == 1 else f"{there} cores"
        return [f"{_threads(number)}, on {held}: slower than with as many cores, and the same bits"]
    return []


def _masks(assembly: Assembly) -> list[str]:
    """The line that says where masks come from; none where there are none."""
    source, masking = assembly.environments.action_mask, assembly.masking
    if masking is None:
        return []
    chosen = "" if assembly.agent.environment.action_mask == source else ", which the environment offers"
    told = "action_mask(state)" if assembly.environments.tensorflow is not None else NAMES[source]
    return [f"masks        {told}{chosen}: of {masking.size} actions only those are chosen that it allows"]


FAR = 2
"""A budget is far below the agent's own where the own one is more than so many times as large."""

ENOUGH = 10
"""Episodes of an evaluation from which it says something of the greedy policy."""

APART = 0.2
"""Sampled actions count as better than greedy ones from this part of the larger return on."""


def summary(agent: Agent, outcome: Outcome, runs: Path, own_steps: int | None = None) -> dict[str, str]:
    """Returns what came of a session, and what to do next, by a word for each.

    Args:
        agent: The configuration.
        outcome: How the session ended.
        runs: Folder of all runs.
        own_steps: The budget that the agent's settings have, where another one was asked for.
    """
    facts: dict[str, str] = {}
    folder = shlex.quote(str(outcome.folder))
    resume = f"python -m rlweights.train --resume {folder}"
    if outcome.evaluation is not None:
        result = outcome.evaluation
        facts["reached"] = (
            f"{result.mean:.1f} +- {result.std:.1f}, mean return of {len(result.returns)} episodes"
        )
        if agent.expect is not None:
            short = own_steps is not None and FAR * outcome.env_steps < own_steps
            facts["expected"] = f"{agent.expect.mean_reward:g}"
            facts["expected"] += f" after {own_steps:,} steps, the agent's own budget" if short else ""
        if (sampled := _better_sampled(agent, outcome)) is not None:
            facts["but sampled"] = (
                f"{sampled:.1f}, mean of the newest training episodes: the likeliest action is not the best "
                f"policy here, see evaluate --stochastic and evaluation.deterministic = false"
            )
        if outcome.stopped:
            facts["stopped"] = f"after {outcome.env_steps:,} steps by {outcome.stopped}"
    elif outcome.finished and outcome.made:
        facts["trained"] = f"{outcome.env_steps:,} steps; no evaluation was asked for"
    elif outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        facts["stopped"] = f"by {name} after {outcome.env_steps:,} steps; the weights are saved"
        facts["resume"] = f"{resume}    # exactly, from step {outcome.resumes_at:,} on"
    else:
        facts["finished"] = f"before, after {outcome.env_steps:,} steps; nothing was changed"
        facts["extend"] = f"{resume} --total-timesteps {2 * outcome.env_steps}"
    if outcome.made:
        facts |= _speed(outcome)
    facts["run"] = str(outcome.folder)
    facts["watch"] = f"tensorboard --logdir {shlex.quote(str(runs))}"
    return facts


def _speed(outcome: Outcome) -> dict[str, str]:
    """How fast was trained, and what the time went into."""
    rate = outcome.rate
    if rate.mean is None:
        return {"time": f"{outcome.seconds:.1f} s"}
    parts = {"training": rate.seconds, "evaluation": rate.paused_seconds}
    parts["start and compiling"] = max(0.0, outcome.seconds - sum(parts.values()))
    spent = ", ".join(f"{seconds:.1f} {what}" for what, seconds in parts.items())
    return {"speed": f"{rate.mean:,.0f} steps/s of training", "time": f"{outcome.seconds:.1f} s: {spent}"}


def own_steps(assembly: Assembly) -> int | None:
    """Returns the budget that an agent's settings have, where another one was asked for; None: the same."""
    return getattr(assembly.source, "own_steps", None)


def _better_sampled(agent: Agent, outcome: Outcome) -> float | None:
    """The mean return of training, whose actions are sampled, where it is far above the greedy one's."""
    sampled = outcome.sampled
    if not agent.evaluation.deterministic or sampled is None or outcome.evaluation is None:
        return None
    if len(outcome.evaluation.returns) < ENOUGH:
        return None
    greedy = outcome.evaluation.mean
    return sampled if sampled - greedy > APART * max(abs(sampled), abs(greedy)) else None
