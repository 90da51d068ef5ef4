"""Every error that a user can meet, each with the exit code of the command that it ends."""

import contextlib
import sys
from collections.abc import Callable
from typing import ClassVar

BAD_CONFIGURATION, STOPPED = 2, 3
"""Exit codes: the command could not begin; the run that it began ended early."""


class BackendError(RuntimeError):
    """Keras is configured for a backend other than TensorFlow."""

    exit_code: ClassVar[int] = BAD_CONFIGURATION


class ConfigError(ValueError):
    """A configuration that cannot be used, explained in one line."""

    exit_code: ClassVar[int] = BAD_CONFIGURATION

    def __init__(self, message: str):
        super().__init__("".join(each if each.isprintable() else " " for each in message))


class RunLockedError(RuntimeError):
    """The run folder cannot be locked, most often because another process is training into it."""

    exit_code: ClassVar[int] = BAD_CONFIGURATION


class BrokenEnvironment(RuntimeError):
    """An environment broke the protocol of Gymnasium; the message names it and what it returned or raised.

    Args:
        message: The message; or another error of this kind, as Gymnasium passes them on between processes.
        details: The traceback of what the environment has raised, if it has.

    Attributes:
        details: See above.
    """

    exit_code: ClassVar[int] = STOPPED

    def __init__(self, message: object, details: str = ""):
        super().__init__(str(message))
        self.details = details or getattr(message, "details", "")


class TrainingStopped(RuntimeError):
    """Training cannot go on; the last good checkpoint is intact."""

    exit_code: ClassVar[int] = STOPPED


class CallbackError(TrainingStopped):
    """A callback of the user's own failed; the message names its class, its method and the line.

    Args:
        message: The message.
        details: The traceback of what the callback has raised.

    Attributes:
        details: See above.
    """

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details


class CheckpointError(Exception):
    """A checkpoint could not be written or read; the message names the file and the reason."""

    exit_code: ClassVar[int] = STOPPED


class RecordsError(RuntimeError):
    """The records cannot be written, explained in one line."""

    exit_code: ClassVar[int] = STOPPED


FORESEEN = (
    BackendError,
    ConfigError,
    RunLockedError,
    BrokenEnvironment,
    TrainingStopped,
    CheckpointError,
    RecordsError,
)
"""All of them: any other exception is a fault of rlweights itself, and shows its traceback."""


def guarded(session: Callable[[], int]) -> int:
    """Runs the body of a command; a foreseen error becomes one line and its exit code.

    Returns:
        The exit code of the process.
    """
    try:
        return session()
    except FORESEEN as error:
        with contextlib.suppress(OSError):  # a console that has gone away: the code says it
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
