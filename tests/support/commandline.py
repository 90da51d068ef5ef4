"""Commands as a shell would call them, in this process."""

from typing import Any

from typer.testing import CliRunner


def invoke(app: Any, *words: Any) -> tuple[int, str, str]:
    """Runs a command; returns exit code, standard output and standard error. What it raises is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr
