"""A lock on a run folder: one process at a time."""

import os
import socket
import sys
import weakref
from pathlib import Path

from rlweights.errors import RunLockedError


class RunLock:
    """Holds a run folder for the time of a `with` block.

    The operating system holds the lock and releases it when the process dies, however it dies: there are no
    stale locks. The file `.lock` stays behind (removing it would race with the next owner) and means nothing.

    Args:
        folder: The run folder; it must exist.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.path = Path(folder) / ".lock"
        self._descriptor: int | None = None

    def __enter__(self) -> "RunLock":
        """Takes the lock.

        Raises:
            RunLockedError: If another process, or another lock of this one, holds it, or it cannot be locked.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise RunLockedError(f"{self.path.parent}: cannot be locked: {error.strerror}") from error
        try:
            _acquire(descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except _HELD_BY_ANOTHER as error:
            owner = os.read(descriptor, 512).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise RunLockedError(f"{self.path.parent}: {owner} is training into this folder") from error
        except OSError as error:
            os.close(descriptor)
            raise RunLockedError(f"{self.path.parent}: cannot be locked: {error.strerror}") from error
        self._descriptor = descriptor
        _HELD.add(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._release()

    def _release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_HELD: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Closes a forked child's copies: an orphaned environment worker would go on holding the lock."""
    for lock in _HELD:
        lock._release()


if sys.platform == "win32":
    import msvcrt

    _HELD_BY_ANOTHER = PermissionError

    def _acquire(descriptor: int) -> None:
        # Others cannot read what is locked: take a byte far behind the owner's name.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    _HELD_BY_ANOTHER = BlockingIOError
    os.register_at_fork(after_in_child=_leave_to_parent)

    def _acquire(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
