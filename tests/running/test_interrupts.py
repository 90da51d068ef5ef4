"""SIGINT and SIGTERM: the run is saved and ends; a second one ends the process at once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from rlweights.errors import BrokenEnvironment
from rlweights.running import announcement, interrupts, session
from rlweights.running.building import policy
from rlweights.running.config import agent_file
from rlweights.running.interrupts import Interrupts, shielded
from rlweights.running.saving import checkpoint_file
from support.simulated import STEPS, TINY, assert_same_result, machine, merged, result, steps_saved

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module", params=["gymnasium", "tensorflow"])
def whole(request, tmp_path_factory):
    """A machine, and the result of a run that nobody interrupted."""
    computer = machine(request.param)
    folder = computer.folder(tmp_path_factory.mktemp("whole"))
    computer.train(folder)
    return computer, result(folder)


def signalled(monkeypatch, owner, name: str, number: int, when) -> None:
    """Makes a function send this process a signal when it is called for the first time such that `when`."""
    original, sent = getattr(owner, name), []

    def sending(*args, **kwargs):
        if when(*args) and not sent:
            sent.append(number)
            signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, sending)


# In the run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_the_run_which_goes_on_exactly(whole, tmp_path, monkeypatch, capfd, number):
    computer, expected = whole
    folder = computer.folder(tmp_path)
    handlers = [signal.getsignal(each) for each in interrupts.NUMBERS]
    with monkeypatch.context() as patch:
        signalled(patch, computer.loop, "advance", number, lambda iteration, limit: iteration >= 9)
        outcome = computer.train(folder)
    assert [signal.getsignal(each) for each in interrupts.NUMBERS] == handlers
    assert session.exit_code(outcome) == 128 + number
    assert outcome.evaluation is None
    steps = outcome.env_steps
    assert 10 * STEPS <= steps < 14 * STEPS
    assert capfd.readouterr().err == (
        f"stopping by {number.name}; the weights will be saved (a second signal ends the run at once)\n"
    )
    _, metadata = checkpoint_file.load(folder / "latest" / "weights.safetensors")
    assert metadata == {"env_steps": steps}
    assert steps_saved(folder)[-1] == steps == outcome.resumes_at
    facts = announcement.summary(computer.agent(), outcome, tmp_path)
    assert facts["stopped"] == f"by {number.name} after {steps} steps; the weights are saved"
    assert facts["resume"].startswith(f"python -m rlweights.train --resume {folder} ")
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_a_signal_between_the_last_iteration_and_the_last_evaluation(whole, tmp_path, monkeypatch):
    computer, expected = whole
    folder = computer.folder(tmp_path)
    with monkeypatch.context() as patch:
        signalled(patch, computer.loop, "advance", signal.SIGINT, lambda iteration, limit: iteration == 13)
        patch.setattr("rlweights.learning.loops.device.SECONDS_PER_CALL", 0.0)  # one iteration a call
        outcome = computer.train(folder)
    assert (outcome.env_steps, outcome.evaluation) == (14 * STEPS, None)
    assert outcome.resumes_at == 14 * STEPS
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_a_signal_before_the_first_iteration(whole, tmp_path, monkeypatch):
    computer, expected = whole
    folder = computer.folder(tmp_path)
    with monkeypatch.context() as patch:
        signalled(patch, computer.loop, "begin", signal.SIGTERM, lambda *_: True)
        outcome = computer.train(folder)
    assert (outcome.env_steps, outcome.signal) == (0, signal.SIGTERM)
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_a_signal_while_saving(whole, tmp_path, monkeypatch):
    """The save is completed."""
    computer, expected = whole
    folder = computer.folder(tmp_path)
    with monkeypatch.context() as patch:
        signalled(patch, os, "replace", signal.SIGINT, lambda a, b: "step-" in str(b))
        outcome = computer.train(folder)
    assert outcome.signal == signal.SIGINT
    assert steps_saved(folder) == [4 * STEPS] == [outcome.env_steps]
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_a_signal_in_the_last_evaluation_finds_the_run_finished(whole, tmp_path, monkeypatch):
    computer, expected = whole
    folder = computer.folder(tmp_path)
    with monkeypatch.context() as patch:
        signalled(patch, policy.Policy, "evaluate", signal.SIGINT, lambda *a: a[3] == 3)
        outcome = computer.train(folder)
    assert outcome.evaluation is not None
    assert session.exit_code(outcome) == 130
    assert_same_result(result(folder), expected)
    assert computer.train(folder, resume=True).made == 0


def test_an_environment_that_a_signal_breaks_is_no_error(whole, tmp_path, monkeypatch):
    """A batch system sends it to all processes of a job, those of an environment included."""
    computer, expected = whole
    folder = computer.folder(tmp_path)

    def broken(iteration, limit):
        if iteration >= 5:
            signal.raise_signal(signal.SIGTERM)
            raise BrokenEnvironment("a worker is gone")
        return advance(iteration, limit)

    advance = computer.loop.advance
    with monkeypatch.context() as patch:
        patch.setattr(computer.loop, "advance", broken)
        outcome = computer.train(folder)
    assert outcome.signal == signal.SIGTERM
    assert steps_saved(folder) == [4 * STEPS], "half an iteration was saved"
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


# The process --------------------------------------------------------------------------------------

HELD = """
import ctypes, signal
from rlweights.running.interrupts import Interrupts

with Interrupts():
    signal.raise_signal(signal.SIGINT)
    print("the first one came", flush=True)
    ctypes.PyDLL(None).sleep(60)  # with Python's lock held: no handler of its own could run
print("it went on")
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(second):
    """Even in a call that never lets Python look."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELD],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "the first one came\n"
    time.sleep(0.1)
    process.send_signal(second)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == -second  # what a shell shows as 128 + the signal
    assert output == ""
    assert errors.count("\n") == 1, "more than the message of the first signal"


def kernel(monkeypatch):
    """As in a cell of a notebook: IPython is there, and has a shell."""
    shell = types.SimpleNamespace(get_ipython=lambda: "a shell")
    monkeypatch.setitem(sys.modules, "IPython", shell)


def prompt(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


@pytest.mark.parametrize("place", [kernel, prompt])
def test_a_second_ctrl_c_in_a_notebook_leaves_the_notebook_alive(monkeypatch, capfd, place):
    place(monkeypatch)
    before = [signal.getsignal(each) for each in interrupts.NUMBERS]
    with Interrupts() as requested:
        signal.raise_signal(signal.SIGINT)
        assert requested.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(each) for each in interrupts.NUMBERS] == before
    assert capfd.readouterr().err.count("stopping by SIGINT") == 1


def test_a_second_ctrl_c_in_a_notebook_ends_the_run_and_not_the_process(whole, tmp_path, monkeypatch, capfd):
    """Sent while an iteration hangs; what the last checkpoint holds is kept, and goes on exactly."""
    computer, expected = whole
    folder, advance = computer.folder(tmp_path), computer.loop.advance

    def hanging(iteration, limit):
        if iteration >= 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return advance(iteration, limit)

    kernel(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(computer.loop, "advance", hanging)
        with pytest.raises(KeyboardInterrupt):
            computer.train(folder)
    assert steps_saved(folder) == [4 * STEPS]
    computer.train(folder, resume=True)
    assert_same_result(result(folder), expected)


def test_without_a_shell_there_is_no_prompt(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not interrupts.at_a_prompt()


def test_ignored_signals_stay_ignored_and_other_threads_change_nothing():
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a background job
    try:
        with Interrupts() as requested:
            signal.raise_signal(signal.SIGINT)
        assert requested.number is None
    finally:
        signal.signal(signal.SIGINT, previous)
    seen = []

    def elsewhere():
        with Interrupts(), shielded():
            seen.append([signal.getsignal(each) for each in interrupts.NUMBERS])

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [[signal.getsignal(each) for each in interrupts.NUMBERS]]


def written_agent(folder: Path, **sections) -> Path:
    path = folder / "tiny.toml"
    path.write_text(agent_file.parse(merged(TINY, sections), "test").to_toml())
    return path


def test_ctrl_c_of_a_terminal(tmp_path):
    """It reaches all processes of the run: here, workers of the environment too. Then the run goes on."""
    steps = 10**6
    agent = written_agent(
        tmp_path,
        environment={"vectorization_mode": "async"},
        budget={"total_timesteps": steps},
        checkpoint={"every": 512},
        evaluation={"every": 0},
        logging={"every": 64},
    )
    command = [sys.executable, "-m", "rlweights.train"]
    process = subprocess.Popen(
        [*command, str(agent), "--runs", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("tiny/*/checkpoints/*.safetensors")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert errors == "stopping by SIGINT; the weights will be saved (a second signal ends the run at once)\n"
    (run,) = tmp_path.glob("tiny/*")
    assert f"resume       python -m rlweights.train --resume {run} " in output
    checkpoint_file.load(run / "latest" / "weights.safetensors")
    saved = steps_saved(run)[-1]
    again = subprocess.run(
        [*command, "--resume", str(run), "--total-timesteps", str(saved + 512)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    assert again.stderr == ""
    assert "reached" in again.stdout
    assert steps_saved(run)[-1] == saved + 512
