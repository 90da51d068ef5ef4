"""The smallest agent as data, and the one line about data that is not valid."""

import pytest

from rlweights.errors import ConfigError
from rlweights.running.config import agent_file
from rlweights.running.config.messages import Setting

MINIMAL = {"environment": {"id": "CartPole-v1"}}


def error_of(data: dict, *overrides: str) -> str:
    """The one line about data that is not valid, without the file."""
    with pytest.raises(ConfigError) as caught:
        agent_file.parse(data, "my.toml", overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix("my.toml: ")


def refused(*overrides: str) -> str:
    """The same about settings of the smallest agent, named by their keys: nobody has typed them."""
    return error_of(MINIMAL, *(Setting(each, "") for each in overrides))
