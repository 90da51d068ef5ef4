"""Every foreseen error of a command becomes one line and an exit code."""

import sys
from collections.abc import Callable

from rlweights.checkpoints import CheckpointError
from rlweights.config import ConfigError
from rlweights.records import RecordsError
from rlweights.runlock import RunLockedError
from rlweights.stepper import BrokenEnvironment
from rlweights.trainer import TrainingStopped

BAD_CONFIGURATION, STOPPED = 2, 3


def guarded(session: Callable[[], int]) -> int:
    """Runs a command's body and returns the exit code of the process."""
    try:
        return session()
    except (ConfigError, RunLockedError) as error:
        return _failed(error, BAD_CONFIGURATION)
    except (TrainingStopped, BrokenEnvironment, CheckpointError, RecordsError) as error:
        return _failed(error, STOPPED)


def _failed(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code
