"""The set-up of TensorFlow in this process: backend, device, start-up messages, the cache of programs."""

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlweights.errors import BackendError

TENSORFLOW = "tensorflow"
NEEDED = (TENSORFLOW, "keras", "gymnasium", "numpy", "pydantic", "typer", "rich", "safetensors", "tomlkit")


def check_packages() -> None:
    """Makes sure that this Python has what rlweights needs.

    Raises:
        ModuleNotFoundError: If it has not; the message says which Python this is and what to do.
        SystemExit: The same for `python -m rlweights...`, which ends with that line alone.
    """
    # With another backend it is the rules that are wanted; Keras itself says so if that one is missing.
    agents = os.environ.get("KERAS_BACKEND", TENSORFLOW) == TENSORFLOW
    needed = NEEDED if agents else ("keras", "numpy")
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if not lacking:
        return
    checkout = Path(__file__).parents[1]
    command = "pip install --upgrade rlweights"
    if (checkout / "pyproject.toml").is_file():
        command = f"pip install -e {checkout}"
        if (checkout / ".venv" / "bin" / "activate").is_file():
            command = f"source {checkout}/.venv/bin/activate"
    text = f"{sys.executable} lacks {', '.join(lacking)}, which rlweights needs: {command}"
    if sys.argv[:1] == ["-m"]:  # so it is while `python -m` looks for the module
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(2)
    raise ModuleNotFoundError(text, name=lacking[0])


def choose_backend() -> str:
    """Makes Keras use TensorFlow, unless the environment variable KERAS_BACKEND names another backend.

    Returns:
        The name of the backend: what Keras has begun with, or will begin with.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend()
    return os.environ.setdefault("KERAS_BACKEND", TENSORFLOW)


def check_backend() -> None:
    """Makes Keras use TensorFlow, on which agents are trained and act.

    Raises:
        BackendError: If Keras is to use another backend.
    """
    backend = choose_backend()
    if backend != TENSORFLOW:
        install = "" if importlib.util.find_spec(TENSORFLOW) else "pip install tensorflow, and "
        raise BackendError(
            f"agents run on Keras' TensorFlow backend, but KERAS_BACKEND is {backend!r}, on which only rules "
            f"run; {install}unset it or set KERAS_BACKEND=tensorflow"
        )


def configure(device: str | None = None, threads: int | None = None) -> None:
    """Sets environment variables that the user has not set, and imports TensorFlow in silence.

    Call it before anything imports TensorFlow.

    Args:
        device: "cpu", "gpu", or "gpu:1" for one of several, counted from 0; None: TensorFlow's own choice, a
            GPU if there is one.
        threads: How many threads an operation may use, see `use_threads`; None: left open.

    Raises:
        BackendError: If there is no such device, or TensorFlow works on another one already.
    """
    if device is not None and not re.fullmatch(r"cpu|gpu(:\d+)?", device):
        raise BackendError(f"--device {device}: takes cpu, gpu, or gpu:1 for one of several, from 0 on")
    _open_standard_streams()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if threads is not None:
        os.environ[THREADS] = str(threads)
    # Without it TensorFlow takes all memory of a GPU, and a second process finds none.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if "TF_XLA_FLAGS" not in os.environ:
        folder = _cache_folder()
        if folder is not None:
            os.environ["TF_XLA_FLAGS"] = (
                f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=CPU,GPU"
            )
    flags = os.environ.get("XLA_FLAGS", "")
    if device != "cpu" and _graphics() and _DETERMINISTIC not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_DETERMINISTIC}=true".strip()
    with _held_back_stderr():
        import tensorflow  # noqa: F401
    if device is not None:
        _choose(device)


THREADS = "TF_NUM_INTRAOP_THREADS"
"""TensorFlow's variable for the threads of one operation: what the user asks for, and children inherit."""


def use_threads(number: int) -> int:
    """Lets an operation use so many threads, unless the variable THREADS asks for another number.

    The number is a part of a run: XLA and Eigen cut large products into as many sums as there are threads, so
    the last bits depend on it. It can be chosen until TensorFlow has computed something; later it stays.

    Returns:
        How many an operation uses.
    """
    import tensorflow as tf

    if asked_threads() is None:
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(number)
    return threads()


def asked_threads() -> int | None:
    """How many threads the user asks for, by option or variable; None: not said."""
    with contextlib.suppress(ValueError):
        return int(os.environ.get(THREADS, "")) or None
    return None


def threads() -> int:
    """How many threads an operation uses in this process."""
    tensorflow = sys.modules.get(TENSORFLOW)
    chosen = 0 if tensorflow is None else tensorflow.config.threading.get_intra_op_parallelism_threads()
    return chosen or asked_threads() or cores()


_DETERMINISTIC = "xla_gpu_deterministic_ops"
"""A resumed run equals one that was not killed only if the same program gives the same bits each time."""


def _choose(device: str) -> None:
    import tensorflow as tf

    with _held_back_stderr():
        found = tf.config.list_physical_devices("GPU")
    kind, _, number = device.partition(":")
    wanted = found[int(number or 0) :][:1] if kind == "gpu" else []
    if kind == "gpu" and not wanted:
        there = f"{len(found)} of them, counted from 0" if found else "none; see pip install 'rlweights[gpu]'"
        raise BackendError(f"--device {device}: TensorFlow finds no such GPU; it finds {there}")
    if tf.config.get_visible_devices("GPU") == wanted:
        return
    try:
        tf.config.set_visible_devices(wanted, "GPU")
    except RuntimeError:
        raise BackendError(
            f"--device {device}: TensorFlow works in this process already; choose the device before that"
        ) from None


def device() -> str:
    """Returns what TensorFlow works on in this process, in words."""
    import tensorflow as tf

    with _held_back_stderr():
        found = tf.config.get_visible_devices("GPU")
        names = [tf.config.experimental.get_device_details(each).get("device_name", "GPU") for each in found]
    if not found:
        return f"CPU, {cores()} cores" if cores() > 1 else "CPU, 1 core"
    return f"GPU {found[0].name.rpartition(':')[2]}, {names[0]}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The name of this machine's processor."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return name


@contextlib.contextmanager
def waiting(what: str, quiet: bool = False) -> Iterator[None]:
    """Shows on a terminal what takes a while, for the time of a `with` block; nothing of it stays."""
    shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
    if shown:
        print(f"\r{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


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


def _open_standard_streams() -> None:
    """Lets standard output and error lead nowhere where a process was started without them (`2>&-`).

    Files that are opened later would take their numbers, and whatever is printed would end up in these.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _cache_folder() -> Path | None:
    """A folder for compiled programs, one for each kind of processor and GPU: they are machine code."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    machine = hashlib.sha256((_processor() + _graphics()).encode()).hexdigest()[:12]
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


def _graphics() -> str:
    """Which GPUs of NVIDIA's and which driver this machine has; empty if there are none."""
    driver = Path("/proc/driver/nvidia")
    found = ""
    for path in [driver / "version", *sorted(driver.glob("gpus/*/information"))]:
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += "".join(
                line for line in lines if not line.startswith(("Bus", "GPU UUID", "Device Minor"))
            )
    return found
