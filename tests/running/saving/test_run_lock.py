import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rlweights.errors import RunLockedError
from rlweights.running.saving.run_lock import RunLock

OWNER = """
import os, sys, time
from rlweights.running.saving.run_lock import RunLock, RunLockedError

folder, fork = sys.argv[1], len(sys.argv) > 2
other = os.path.join(folder, "other")
os.makedirs(other, exist_ok=True)
try:
    with RunLock(folder), RunLock(other) as second:
        child, (ours, theirs) = None, os.pipe()
        if fork:
            child = os.fork()
            if child == 0:  # a worker that outlives its parent
                numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
                second.__exit__()
                [os.fstat(number) for number in numbers]  # no lock closed what is not its own
                os.write(theirs, b"!")
                time.sleep(60)
            os.close(theirs)
            assert os.read(ours, 1), "the worker failed"
        print("held", child, flush=True)
        sys.stdin.read()
except RunLockedError as error:
    print(error, flush=True)
"""


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen, str]:
    """Starts a process that holds the lock until its input is closed; also its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def end(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    process.wait()


def test_a_second_process_is_refused_and_told_the_owner(tmp_path):
    with RunLock(tmp_path):
        process, line = start(tmp_path)
        end(process)
    assert line == f"{tmp_path}: process {os.getpid()} on {socket.gethostname()} is training into this folder"
    process, line = start(tmp_path)
    end(process)
    assert line == "held None", "leaving the block did not release the lock"


def test_the_lock_goes_with_its_owner_however_it_ends(tmp_path):
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        process, line = start(tmp_path)
        assert line == "held None"
        with pytest.raises(
            RunLockedError, match=rf"process {process.pid} on {re.escape(socket.gethostname())} is"
        ):
            RunLock(tmp_path).__enter__()
        if number:
            process.send_signal(number)
        end(process)
        with RunLock(tmp_path):
            pass


def test_a_forked_worker_that_outlives_its_parent_holds_nothing(tmp_path):
    process, line = start(tmp_path, "fork")
    worker = int(line.split()[1])
    try:
        with pytest.raises(RunLockedError), RunLock(tmp_path):
            pass  # the worker's copy is closed, the parent still holds
        process.kill()
        process.wait()
        os.kill(worker, 0)  # still alive
        with RunLock(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        end(process)


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with RunLock(tmp_path):
        descriptors = len(os.listdir("/dev/fd"))
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on"):
            RunLock(tmp_path).__enter__()
        assert len(os.listdir("/dev/fd")) == descriptors
        (tmp_path / "other").mkdir()
        with RunLock(tmp_path / "other"):
            pass


def test_an_exception_releases(tmp_path):
    lock = RunLock(tmp_path)
    for _ in range(2):
        with pytest.raises(KeyError), lock:
            raise KeyError
    with lock:
        pass


@pytest.mark.parametrize("name", ["open", "ftruncate", "write"])
def test_what_the_system_refuses_is_said_and_nothing_stays_locked(tmp_path, monkeypatch, name):
    def refuse(*args):
        raise OSError(30, "Read-only file system")

    descriptors = len(os.listdir("/dev/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(RunLockedError, match=f"^{tmp_path}: cannot be locked: Read-only file system$"):
            RunLock(tmp_path).__enter__()
    assert len(os.listdir("/dev/fd")) == descriptors
    with RunLock(tmp_path):
        pass


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(RunLockedError, match="gone: cannot be locked: No such file or directory"):
        RunLock(tmp_path / "gone").__enter__()
