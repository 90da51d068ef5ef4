"""What all tests run under."""

import os
import signal
import tempfile


def pytest_configure():
    """Code of the tests lies in temporary folders, and is trusted; what is trusted is forgotten with them."""
    os.environ["RLWEIGHTS_TRUST"] = "1"
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="rlweights-state-")
    _takes_interrupts()


def _takes_interrupts():
    """Takes Ctrl-C seriously, even where the tests were started in the background by a shell.

    Such a shell lets its children ignore SIGINT, and so would every training that a test interrupts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
