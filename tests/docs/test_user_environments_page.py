"""The page about environments as users bring them: complete, and true of what is seen without training."""

import contextlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import BrokenEnvironment, ConfigError
from rlweights.learning.distributions import Distribution, for_space
from rlweights.learning.evaluation import evaluate
from rlweights.learning.rollout import Rollout
from rlweights.learning.spaces import Translation, action_decoder, observation_encoder
from rlweights.running.building.environments import EnvironmentFactory
from rlweights.running.building.user_code import UserCode
from rlweights.running.config import agent_file
from support import user_environments, user_simulators

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "user-environments.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (`.*?`) \| .* \| \*\*(\d+|no end)\*\* (.*) \|$", re.MULTILINE)

SEEN_IN_TRAINING = {
    "Dies",
    "DiesInReset",
    "Hangs",
    "RaisesLater",
    "FlakyReset",
    "RewHuge",
    "RewNegInf",
    "RewardNaN",
}
"""Environments that fail in a process of their own, later on, or in the update alone."""


def rows(module: ModuleType) -> list[tuple[str, list[str]]]:
    """What is trained: the environments of a module, with keys of the agent file."""
    found = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, gym.Env) and value.__module__ == module.__name__
    ]
    return [(name, changes) for name in found for changes in module.SETTINGS.get(name, [[]])]


def rollouts(made: EnvironmentFactory, num_envs: int, distribution: Distribution, into: Translation) -> None:
    """Collects three rollouts and goes on in other environments, as a killed run does: nothing differs."""

    def collected(rollout: Rollout, number: int) -> bytes:
        batch, _ = rollout.collect(still(distribution), lambda x: np.zeros(len(x)), number)
        rollout.renew(number + 1)
        return b"".join(np.ascontiguousarray(each).tobytes() for each in batch)

    pair = [made.continued(num_envs, distribution, into)]
    try:
        whole = Rollout(pair[0], distribution, 32, 0)
        whole.begin(0)
        for number in range(3):
            collected(whole, number)
        state = whole.state()
        pair.append(made.continued(num_envs, distribution, into))
        resumed = Rollout(pair[1], distribution, 32, 0)
        resumed.restore(state)
        assert collected(resumed, 3) == collected(whole, 3)
    finally:
        for each in pair:
            with contextlib.suppress(OSError):
                each.stepper.envs.close()


def still(distribution: Distribution):
    """A policy that looks at nothing."""
    return lambda x: np.zeros((len(x), distribution.parameter_size), np.float32)


def played(file: str, name: str, changes: list[str]) -> tuple[str, str]:
    """Plays in an environment as training and evaluations do; returns exit code and message."""
    agent = agent_file.for_environment(f"{file}:{name}", ["environment.num_envs=2", *changes]).agent
    made = EnvironmentFactory(agent, UserCode(f"--env {file}:{name}", TESTS))
    try:
        observed, acted = made.spaces()
        into, distribution = (
            Translation(observation_encoder(observed), action_decoder(acted)),
            for_space(acted),
        )
        if name != "Single":  # which can be resumed by another process, but not beside itself
            rollouts(made, agent.environment.num_envs, distribution, into)
        if agent.evaluation.episodes:
            envs = made.vector(2, evaluation=True)
            evaluate(still(distribution), envs, distribution, into, 2, 0, True, 60)
            with contextlib.suppress(OSError):
                envs.close()
    except BrokenEnvironment as error:
        return "3", str(error)
    except ValueError as error:  # a space that is refused; a ConfigError is one, too
        return "2", str(error)
    return "0", ""


def comparable(text: str) -> str:
    return re.sub(r"line \d+", "line N", text.replace("\\", ""))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_each_environment_does_what_the_page_says(capsys):
    said = {label: (code, line) for label, code, line in ROW.findall(PAGE)}
    tried = [(module, *row) for module in (user_environments, user_simulators) for row in rows(module)]
    labels = [", ".join(f"`{each}`" for each in (name, *changes)) for _, name, changes in tried]
    assert labels == list(said)
    wrong = []
    for label, (module, name, changes) in zip(labels, tried, strict=True):
        if name in SEEN_IN_TRAINING:
            continue
        code, message = played(f"{module.__name__.replace('.', '/')}.py", name, changes)
        page_code, line = said[label]
        if code != page_code or comparable(message)[:160] not in comparable(line):
            wrong.append((label, code, message, page_code, line))
    assert wrong == []
    assert issubclass(ConfigError, ValueError)
