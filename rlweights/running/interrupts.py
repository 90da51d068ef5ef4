"""Signals that ask a run to end."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, a batch system, and a terminal that was closed; `nohup` keeps the last one away."""


class Interrupts:
    """For the time of a `with` block, turns the first of NUMBERS into a request to end.

    A second signal has the default effect and ends the process at once, even where Python would not get to
    see it: in a step of an environment that hangs, or in a long compilation. No file that the process writes
    is harmed by that. Where a person is at the prompt, a notebook's or Python's own, a second SIGINT raises
    KeyboardInterrupt instead, and what the process holds is kept. In a thread other than the main one nothing
    is changed.

    Attributes:
        number: The signal that came, if one did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            # A shell starts background jobs with SIGINT ignored, `nohup` with SIGHUP: they are not meant.
            heeded = [each for each in NUMBERS if signal.getsignal(each) is not signal.SIG_IGN]
            self._previous = {each: signal.signal(each, self._handle) for each in heeded}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: object) -> None:
        self.number = number
        for each in self._previous:
            interrupts = each == signal.SIGINT and at_a_prompt()
            signal.signal(each, signal.default_int_handler if interrupts else signal.SIG_DFL)
        name = signal.Signals(number).name
        _say(f"stopping by {name}; the weights will be saved (a second signal ends the run at once)")


def at_a_prompt() -> bool:
    """Whether a person works in this process: a notebook, IPython, or Python's own prompt."""
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return True
    found = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return found is not None and found() is not None


def _say(text: str) -> None:
    """Writes a line without taking a lock: the handler may have interrupted the holder of one.

    On a terminal it also brings back the cursor, which a live display has hidden: after a second signal it
    would stay hidden.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    with contextlib.suppress(OSError):  # a closed terminal must not keep the run from saving
        os.write(2, (f"\r\x1b[K\x1b[?25h{text}\n" if terminal else f"{text}\n").encode())


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Keeps Ctrl-C, which reaches all processes of a terminal, from those that are started in the block.

    Workers of a vector environment must live on until the iteration under way is over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
