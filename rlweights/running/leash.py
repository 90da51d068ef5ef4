"""Child processes end with their parent, however that ends: they hold a pipe whose other end goes with it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence


def leashed(command: Sequence[str]) -> list[str]:
    """Returns a command that runs another one, and kills it when the other end of standard input is gone.

    It is to be started with a pipe as standard input and, where the system has them, in a session of its own:
    all processes of that session's group are killed then. SIGTERM is left to the command itself.
    """
    return [sys.executable, "-m", __name__, *command]


def end_with_parent(end: Callable[[], object]) -> None:
    """Calls `end`, in a thread, when the other end of this process's standard input is gone.

    It should end the process at once, and not in good order: that is what a kill of the parent means.
    """

    def wait() -> None:
        while os.read(0, 1):
            pass
        end()

    threading.Thread(target=wait, daemon=True).start()


def _run(command: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # unlike one that is ignored, not inherited
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        print(error.strerror or error, file=sys.stderr)
        return 1

    def end() -> None:
        with contextlib.suppress(OSError):
            child.kill()
        if hasattr(os, "killpg"):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    end_with_parent(end)
    return child.wait()


if __name__ == "__main__":
    raise SystemExit(_run(sys.argv[1:]))
