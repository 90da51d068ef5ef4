"""Atomic writes: a file is whole or not there, after a kill, a full disk or a power cut as well."""

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path


def write(path: Path, data: bytes | bytearray) -> None:
    """Writes `data` to `path` atomically and durably.

    One process at a time may write a file: half-written leftovers are taken for those of a killed process.

    Raises:
        OSError: If the system refuses. No temporary file stays behind and an older file is unchanged, except
            when only the last step, the sync of the folder, fails: then the complete new file is there.
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
    """Moves a file of the same folder to `path`, atomically and durably like `write`."""
    sync(temporary)
    os.replace(temporary, path)
    _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Waits until everything that any process wrote to a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def must_be_regular(path: Path) -> None:
    """Makes sure that a file can be read to its end: opening a named pipe would wait forever.

    Raises:
        OSError: If it is a pipe, a device or a folder, or there is none; it names the file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def read_text(path: Path, errors: str = "strict") -> str:
    """Returns the text of a regular file; a named pipe is an OSError, not a wait."""
    must_be_regular(path)
    return path.read_text(encoding="utf-8", errors=errors)


def must_exist(path: Path) -> None:
    """Makes sure that a file that is open for writing still has its name.

    Raises:
        FileNotFoundError: If there is no such file anymore.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "it has vanished")


def remove_leftovers(folder: Path, target: str) -> None:
    """Removes the half-written leftovers of killed processes, of files whose names match `target`.

    Args:
        folder: The folder of the files.
        target: A regular expression for their names.
    """
    leftover = re.compile(target + r"\.[0-9a-f]{8}\.tmp")
    for name in os.listdir(folder):
        if leftover.fullmatch(name):
            with contextlib.suppress(OSError):  # a leftover does no harm
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
