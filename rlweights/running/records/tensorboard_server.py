"""TensorBoard beside a run: starts and ends with it, killed or not."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from rlweights.running.leash import leashed

COMMAND = (sys.executable, "-m", "tensorboard.main")

PATIENCE = 5.0
"""Seconds that TensorBoard has to end after a signal."""

UNTIL_IT_LISTENS = 15.0
"""Seconds that the display of a run waits for the address."""

_ADDRESS = re.compile(r"https?://\S+")


@contextlib.contextmanager
def watched(folder: Path, say: Callable[[str], None]) -> Iterator[Callable[[], Any]]:
    """Runs TensorBoard on a folder for the time of a `with` block.

    The block does not wait for TensorBoard: `say` gets the address as soon as it listens, or the reason why
    it does not. The block goes on without it. It is given a function that waits until `say` was called, and
    not much longer than that takes.

    Args:
        folder: The folder with the runs.
        say: Shows one line; it is called by another thread.
    """
    try:
        # In a new session: Ctrl-C asks the run to stop, and TensorBoard shows the run until it has.
        process = subprocess.Popen(
            leashed([*COMMAND, "--logdir", str(folder)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        say(f"TensorBoard cannot start: {error.strerror or error}")
        yield lambda: None
        return
    assert process.stdin is not None
    assert process.stderr is not None
    ending, told = threading.Event(), threading.Event()

    def tell(line: str) -> None:
        say(line)
        told.set()

    listener = threading.Thread(target=_listen, args=(process.stderr, tell, ending), daemon=True)
    listener.start()
    try:
        yield lambda: told.wait(UNTIL_IT_LISTENS)
    finally:
        ending.set()
        _end(process)
        listener.join(timeout=PATIENCE)
        process.stderr.close()
        process.stdin.close()


def _listen(stream: IO[str], say: Callable[[str], None], ending: threading.Event) -> None:
    """Reads TensorBoard's output to its end (a full pipe would stop it); passes on its address."""
    started, last = False, "it said nothing"
    for line in stream:
        last = line.strip() or last
        address = _ADDRESS.search(line) if line.startswith("TensorBoard ") else None
        if address is not None and not started:
            started = True
            say(f"TensorBoard  {address.group()}")
    if not ending.is_set():
        say(f"TensorBoard {'has ended' if started else 'cannot start'}: {last}")


def _end(process: subprocess.Popen[str]) -> None:
    """Ends TensorBoard and its child processes."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=PATIENCE)
            return
