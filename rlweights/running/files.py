"""Files that are whole or not there, whatever a kill, a full disk or a power cut does to them."""

import contextlib
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path


def write(path: Path, data: bytes | bytearray) -> None:
    """Puts `data` at `path` in one act that survives a power cut.

    One process at a time may write a file: what is left half-written of it is taken for a killed one's.

    Raises:
        OSError: The system refused. No temporary file stays behind and an older file is as it was, except
            that when only the last act, the sync of the folder, fails, the complete new file is in its place.
    """
    remove_leftovers(path.parent, re.escape(path.name))
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        try:
            rest = memoryview(data)
            while rest:
                written = os.write(descriptor, rest)
                if written == 0:
                    raise OSError(errno.EIO, "the system writes nothing more")
                rest = rest[written:]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def replace(temporary: Path, path: Path) -> None:
    """Puts a file of the same folder at `path`, in one act like that of `write`."""
    sync(temporary)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Waits until what was written to a file, by any process, is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def must_exist(path: Path) -> None:
    """Notices what writing to an open file does not: that nobody will find it again.

    Raises:
        FileNotFoundError: If there is no such file any more.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "it has vanished")


def remove_leftovers(folder: Path, target: str) -> None:
    """Removes what killed processes left half-written of files whose names match the pattern `target`."""
    leftover = re.compile(target + r"\.[0-9a-f]{8}\.tmp")
    for name in os.listdir(folder):
        if leftover.fullmatch(name):
            with contextlib.suppress(OSError):  # in the way of nothing
                (folder / name).unlink()


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, where the system has a way to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this file system cannot sync folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def on_standard_error() -> Iterator[None]:
    """Lets everything that is printed in the block go to standard error, what C++ code prints too."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # there is none
        kept = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
