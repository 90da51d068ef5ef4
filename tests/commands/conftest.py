"""The `rlweights` script, and a run to look at."""

import functools

import pytest

from rlweights import cli
from support.commandline import invoke
from support.smallruns import small_run


@pytest.fixture(scope="module")
def run():
    return small_run()


@pytest.fixture
def rlweights(monkeypatch):
    """Runs the `rlweights` script; returns exit code, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "200")
    return functools.partial(invoke, cli.app)
