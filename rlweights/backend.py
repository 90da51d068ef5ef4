"""The set-up of TensorFlow in this process: Keras' backend, start-up messages, the cache of programs."""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlweights.errors import BackendError


def check_backend() -> None:
    """Makes Keras use TensorFlow.

    Raises:
        BackendError: If the environment variable KERAS_BACKEND names another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise BackendError(
            f"rlweights runs on Keras' TensorFlow backend, but KERAS_BACKEND is {backend!r}; "
            f"unset it or set KERAS_BACKEND=tensorflow"
        )


def configure() -> None:
    """Sets environment variables that the user has not set, and imports TensorFlow in silence.

    Call it before anything imports TensorFlow.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "TF_XLA_FLAGS" not in os.environ:
        folder = _cache_folder()
        if folder is not None:
            os.environ["TF_XLA_FLAGS"] = (
                f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=CPU"
            )
    with _held_back_stderr():
        import tensorflow  # noqa: F401


@contextlib.contextmanager
def _held_back_stderr() -> Iterator[None]:
    """Holds back the standard error of the process, and shows it only if something fails.

    TensorFlow's libraries write greetings to file descriptor 2 before they read any of their settings.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _cache_folder() -> Path | None:
    """A folder for compiled programs, one for each kind of processor: they are machine code."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    machine = hashlib.sha256(_processor().encode()).hexdigest()[:12]
    folder = root / "rlweights" / f"xla-{machine}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # without a cache everything works, only slower
    return folder if os.access(folder, os.W_OK) else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags"))))
    except OSError:
        return platform.processor() + platform.machine()
