"""One process on a run folder at a time."""

import os
import socket
from pathlib import Path
from typing import IO, Any


class RunLockedError(RuntimeError):
    """Another process is training into the folder."""


class RunLock:
    """Holds a run folder for the time of a `with` block.

    The operating system holds the lock and releases it when the process dies, however it dies: there are no
    stale locks.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / ".lock"
        self._file: IO[Any] | None = None

    def __enter__(self) -> "RunLock":
        file = self.path.open("a+", encoding="utf-8")
        try:
            _acquire(file)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise RunLockedError(f"{self.path.parent}: {owner} is training into this folder") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._file = file
        return self

    def __exit__(self, *error) -> None:
        assert self._file is not None
        self._file.truncate(0)
        self._file.close()
        self._file = None


if os.name == "posix":
    import fcntl

    def _acquire(file: IO[Any]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

else:
    import msvcrt

    def _acquire(file: IO[Any]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
