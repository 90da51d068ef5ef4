"""What the console says of a training session: what is trained before it, and what came of it after."""

import shlex
import signal
from pathlib import Path

from rlweights.backend import device
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
    lines = [
        f"agent        {name}, seed {agent.seed}",
        f"environment  {section.id} ({section.backend}, {rollout} an iteration)",
        f"algorithm    {algorithm.name.upper()}, {assembly.optimizer.inner.name}",
        f"budget       {steps:,} steps{rounded}",
    ]
    lines += [
        f"{'rules' if i == 0 else '':13}{rule.describe()}" for i, rule in enumerate(assembly.rules)
    ] or ["rules        none"]
    lines += [f"evaluation   {evaluations or 'none'}", f"device       {device()}"]
    given = objects.references(
        {"environment": section.model_dump(), "evaluation": agent.evaluation.model_dump()}
    )
    lines += [
        f"object       {key} is {objects.name_of(text)}, given from Python: the run keeps only its name"
        for key, text in given.items()
    ]
    lines += [f"code         {file} was loaded: the agent file names it" for file in assembly.files.loaded]
    return [*lines, f"run          {run}"]


def summary(agent: Agent, outcome: Outcome, runs: Path) -> dict[str, str]:
    """Returns what came of a session, and what to do next, by a word for each."""
    facts: dict[str, str] = {}
    folder = shlex.quote(str(outcome.folder))
    resume = f"python -m rlweights.train --resume {folder}"
    if outcome.evaluation is not None:
        result = outcome.evaluation
        facts["reached"] = (
            f"{result.mean:.1f} +- {result.std:.1f}, mean return of {len(result.returns)} episodes"
        )
        if agent.expect is not None:
            facts["expected"] = f"{agent.expect.mean_reward:g}"
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
