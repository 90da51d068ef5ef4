"""A small agent, assembled or refused, for tests of whatever builds a part of it."""

from pathlib import Path

import pytest

from rlweights.errors import ConfigError
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.config.messages import Setting

SMALL = {
    "environment": {"id": "CartPole-v1", "num_envs": 2},
    "algorithm": {"name": "ppo", "n_steps": 8, "batch_size": 8, "n_epochs": 2},
    "network": {"hidden_sizes": [4, 3]},
}


def assembled(*overrides: str, folder: Path | None = None, rules=()) -> Assembly:
    settings = [Setting(each, "") for each in overrides]  # nobody has typed them: keys name them in errors
    agent = agent_file.parse({**SMALL, "interventions": list(rules)}, "my.toml", settings)
    return Assembly(agent, "my.toml", folder)


def refused(*overrides: str, folder: Path | None = None, rules=()) -> str:
    """The one line about an agent that cannot be built, without the file."""
    with pytest.raises(ConfigError) as caught:
        assembled(*overrides, folder=folder, rules=rules)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("my.toml: ")
    return message.removeprefix("my.toml: ")


def selected(assembly: Assembly) -> list[list[str]]:
    """The paths of the weights of each rule."""
    return [[variable.path for variable in rule.variables] for rule in assembly.rules]
