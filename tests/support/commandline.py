"""Commands as a shell would call them: in this process, or in one of their own."""

import os
import re
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner


def invoke(app: Any, *words: Any) -> tuple[int, str, str]:
    """Runs a command; returns exit code, standard output and standard error. What it raises is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


SMALL = ("--set", "network.hidden_sizes=[4]", "--set", "evaluation.final_episodes=1", "-n", "256")


# Real processes -----------------------------------------------------------------------------------


def process(*words, folder, **environment):
    """Runs `python -m rlweights.train`; returns exit code, standard output and standard error."""
    variables = {k: v for k, v in os.environ.items() if k not in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}
    done = subprocess.run(
        [sys.executable, "-m", "rlweights.train", *words],
        cwd=folder,
        env=variables | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def refused(outcome) -> str:
    """The one line that a command says before it gives up; nothing else but whose code it has run."""
    code, output, error = outcome
    error = re.sub(r"code  .*\n", "", error)
    assert code == 2
    assert output == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
