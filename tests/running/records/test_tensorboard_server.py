"""TensorBoard beside a run: its address is said, it ends with the run, and a run needs none."""

import contextlib
import os
import queue
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from rlweights.running.records import tensorboard_server
from rlweights.running.records.tensorboard_server import watched

PRETENDER = """
import os, sys, time
print("noise http://nothing/", file=sys.stderr)
print("x" * 200_000, file=sys.stderr)
print(f"TensorBoard 2.21.0 at http://localhost/{os.getpid()} (Press CTRL+C)", file=sys.stderr, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def pretend(monkeypatch):
    """Puts a program of our own in TensorBoard's place."""

    def replace(script):
        monkeypatch.setattr(tensorboard_server, "COMMAND", (sys.executable, "-c", script))

    return replace


def test_the_real_one_serves_while_the_block_runs(tmp_path):
    said = queue.Queue()
    with watched(tmp_path, said.put):
        line = said.get(timeout=60)
        assert line.startswith("TensorBoard  http://localhost:")
        address = line.split()[1]
        with urllib.request.urlopen(address + "data/logdir", timeout=20) as answer:
            assert str(tmp_path).encode() in answer.read()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address, timeout=5)
    assert said.empty()


def test_only_the_address_is_said_and_a_lot_of_noise_blocks_nobody(tmp_path, pretend):
    pretend(PRETENDER)
    said = queue.Queue()
    with watched(tmp_path, said.put):
        assert re.fullmatch(r"TensorBoard  http://localhost/\d+", said.get(timeout=20))
    assert said.empty()


def pid_of_a_failing_run(folder) -> int:
    """Fails while TensorBoard's stand-in is running; returns its process id."""
    said, pid = queue.Queue(), 0
    with contextlib.suppress(InterruptedError), watched(folder, said.put):
        pid = int(said.get(timeout=20).rpartition("/")[2])
        assert alive(pid)
        raise InterruptedError
    return pid


def test_it_ends_when_the_run_fails(tmp_path, pretend):
    pretend(PRETENDER)
    assert not alive(pid_of_a_failing_run(tmp_path))


def test_one_that_does_not_react_is_killed(tmp_path, pretend, monkeypatch):
    monkeypatch.setattr(tensorboard_server, "PATIENCE", 0.3)
    pretend("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PRETENDER)
    pid, deadline = pid_of_a_failing_run(tmp_path), time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (
            "import sys; sys.exit('ModuleNotFoundError: no tensorboard')",
            "ModuleNotFoundError: no tensorboard",
        ),
        ("pass", "it said nothing"),
    ],
)
def test_one_that_cannot_start_is_said_and_the_block_runs(tmp_path, pretend, script, line):
    pretend(script)
    said = queue.Queue()
    with watched(tmp_path, said.put):
        assert said.get(timeout=20) == f"TensorBoard cannot start: {line}"
    assert said.empty()


def test_one_that_is_not_there_is_said_and_the_block_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tensorboard_server, "COMMAND", (str(tmp_path / "python"),))
    said = []
    with watched(tmp_path, said.append) as wait:
        wait()
    assert said == ["TensorBoard cannot start: No such file or directory"]


def test_it_ends_when_the_run_is_killed(tmp_path):
    """With its own children: TensorBoard's data server is one."""
    child = "import os, time; print('TensorBoard at http://x/', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}], stdout=sys.stderr)\n"
    script = f"""
import os, sys, threading
from rlweights.running.records import tensorboard_server
tensorboard_server.COMMAND = (sys.executable, "-c", {parent!r})
with tensorboard_server.watched("runs", print) as wait:
    wait()
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path, timeout=60)
    assert done.returncode == -9
    deadline = time.monotonic() + 20
    while (left := running(child)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def running(script: str) -> list[Path]:
    """The processes that run a script, or whose command holds it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] if script.encode() in path.read_bytes() else []
    return found
