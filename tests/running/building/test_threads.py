"""The number of threads is a part of a run: it follows from the work, and a resumed run keeps it.

That a run of two threads, resumed with them on one core, ends with its own bits, and on one thread with
others, was seen with 64 x 32 steps and batches of 2,048 as one program: that takes minutes.
"""

import json
import shutil

import pytest

from rlweights import backend
from rlweights.learning.parts import ObservationPart
from rlweights.running import session
from rlweights.running.building import assembly, threads
from rlweights.running.config import agent_file
from rlweights.running.records import provenance
from rlweights.running.saving.checkpoints import THREADS, Checkpoints
from support.agentdata import MINIMAL
from support.smallruns import small_run

NUMBERS, IMAGE = ObservationPart("", "numbers", (4,)), ObservationPart("", "image", (84, 84, 4))


@pytest.mark.parametrize(
    ("batch", "hidden", "part", "own", "number"),
    [
        (128, [64, 64], NUMBERS, False, 1),
        (2_048, [64, 64], NUMBERS, False, 7),
        (64, [256, 256], NUMBERS, False, 7),
        (2_048, [64], NUMBERS, False, 1),
        (32, [16], IMAGE, False, 7),
        (32, [16], NUMBERS, True, 7),
    ],
)
def test_large_products_get_all_cores_and_small_ones_one_thread(
    monkeypatch, batch, hidden, part, own, number
):
    monkeypatch.setattr(threads, "cores", lambda: 7)
    data = MINIMAL | {"algorithm": {"name": "ppo", "batch_size": batch, "n_steps": 2_048}}
    agent = agent_file.parse(data | {"network": {"hidden_sizes": hidden}}, "test")
    assert threads.threads_for(agent, [part], own) == number


def test_what_the_user_asks_for_counts_and_children_inherit_it(monkeypatch):
    monkeypatch.setenv(backend.THREADS, "")
    assert backend.asked_threads() is None
    backend.configure(threads=3)
    assert backend.asked_threads() == 3
    set_to = []
    monkeypatch.setattr(
        "tensorflow.config.threading.set_intra_op_parallelism_threads", set_to.append, raising=True
    )
    backend.use_threads(5)
    assert set_to == []
    monkeypatch.setenv(backend.THREADS, "many")
    backend.use_threads(5)
    assert set_to == [5]


def test_a_resumed_run_goes_on_with_the_threads_of_its_checkpoint(tmp_path, monkeypatch, capsys):
    run, asked = tmp_path / "runs" / "run", []
    shutil.copytree(small_run(), run)
    monkeypatch.setattr(assembly, "use_threads", lambda number: asked.append(number) or number)
    files = Checkpoints(run / "checkpoints")
    found, here = files.load_latest(), backend.threads()
    assert found is not None
    step, tensors, metadata = found
    told = [each[THREADS] for each in provenance.sessions(run)]
    assert [metadata[THREADS], *told] == [here, here]
    monkeypatch.setattr(backend, "threads", lambda: here + 5)
    files.save(step, tensors, metadata)
    session.resume(run, [])
    shown = capsys.readouterr().out
    assert f"; {here + 5} threads an operation\n" in shown
    assert f"{here + 5} threads an operation, on " in shown
    shutil.rmtree(run / "checkpoints")  # killed before the first one: it starts over as it began
    (run / provenance.FILE).write_text(json.dumps({"sessions": [{THREADS: 3}]}))
    assert session._threads_of(run) == (3, 3)
    (run / provenance.FILE).write_text(json.dumps({"sessions": [{"cores": 4}]}))
    assert session._threads_of(run) == (4, None)  # as TensorFlow chose
    assert asked == [here + 5]


def test_another_number_than_the_recorded_one_is_said(monkeypatch):
    made = type("Made", (), {"threads": 1})()
    (line,) = session.threads_remarks(made, 2)
    assert line.startswith("warning: the run was trained with 2 threads an operation, and goes on with 1: ")
    assert session.threads_remarks(made, 1) == []
