"""What all tests run under."""

import signal


def pytest_configure():
    """Takes Ctrl-C seriously, even where the tests were started in the background by a shell.

    Such a shell lets its children ignore SIGINT, and so would every training that a test interrupts.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
