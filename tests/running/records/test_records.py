"""Records of a run: what comes back after kills, full disks and folders that vanished."""

import contextlib
import math
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlweights.errors import RecordsError
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import Records
from support.recorded import CSV, newest_event_file, record, rows_of, tensors_of

# Scalars ------------------------------------------------------------------------------------------


def test_scalars_are_read_back_with_their_steps(tmp_path):
    with Records(tmp_path) as records:
        records.write(256, {"a/x": 0.5, "a/y": np.float32(0.1)})
        records.write(512, {"a/x": -3, "time/fps": 12.0})
    assert read_scalars(tmp_path) == {
        "a/x": [(256, 0.5), (512, -3.0)],
        "a/y": [(256, np.float32(0.1))],
        "time/fps": [(512, 12.0)],
    }
    assert (tmp_path / CSV).read_text() == "env_steps,a/x,a/y\n256,0.5,0.1\n512,-3.0,\n"


def test_nan_and_none_are_left_out_and_infinity_is_not(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"nan": math.nan, "none": None, "inf": math.inf, "a": 1.0})
    assert read_scalars(tmp_path) == {"inf": [(1, math.inf)], "a": [(1, 1.0)]}
    assert rows_of(tmp_path) == [{"env_steps": "1", "inf": "inf", "a": "1.0"}]


def test_clock_times_stay_out_of_the_csv(tmp_path):
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with Records(tmp_path / name) as records:
            record(records, range(1, 10))
        files.append((tmp_path / name / CSV).read_bytes())
    assert files[0] == files[1]
    assert b"time/" not in files[0]
    assert "time/fps" in read_scalars(tmp_path / "one")


def test_every_row_is_in_the_files_when_write_returns(tmp_path):
    records = Records(tmp_path)
    for step in range(1, 4):
        records.write(step, {"a": step})
        assert rows_of(tmp_path)[-1] == {"env_steps": str(step), "a": f"{step}.0"}
        assert read_scalars(tmp_path)["a"][-1] == (step, step)
    records.close()


# Resuming -----------------------------------------------------------------------------------------


def tear(folder: Path, csv_bytes: int, event_bytes: int) -> None:
    """Cuts the ends of the files, as a kill in the middle of writing would."""
    for path, cut in ((folder / CSV, csv_bytes), (newest_event_file(folder), event_bytes)):
        os.truncate(path, path.stat().st_size - cut)


@settings(max_examples=25, deadline=None)
@given(
    killed=st.lists(st.integers(1, 14), min_size=1, max_size=3),
    back=st.integers(0, 12),
    cuts=st.tuples(st.integers(0, 40), st.integers(0, 60)),
)
def test_a_run_killed_and_resumed_records_what_an_uninterrupted_one_does(
    tmp_path_factory, killed, back, cuts
):
    straight, broken = tmp_path_factory.mktemp("straight"), tmp_path_factory.mktemp("broken")
    with Records(straight) as records:
        record(records, range(1, 16))

    step, resume = 0, None
    for end in killed:
        if end > step:
            # What was recorded before the kill and again after it differs, so stale values would show.
            last = end - back
            with Records(broken, resume_step=resume) as first:  # closing writes nothing
                record(first, range(step + 1, max(step, last) + 1))
                record(first, range(max(step, last) + 1, end + 1), offset=0.25)
            if end > last:
                lost = [len(line) for line in (broken / CSV).read_bytes().splitlines(keepends=True)][1:]
                tear(broken, min(cuts[0], lost[-1]), cuts[1] if end - last > 1 else 0)
            step = resume = max(step, last)
    with Records(broken, resume_step=resume) as records:
        record(records, range(step + 1, 16))

    assert (broken / CSV).read_bytes() == (straight / CSV).read_bytes()
    one, two = read_scalars(straight), read_scalars(broken)
    for tag in one.keys() - {"time/fps"}:
        assert two[tag] == one[tag]
    one, two = tensors_of(straight, "kernel"), tensors_of(broken, "kernel")
    assert one.keys() == two.keys() == {4, 8, 12}
    for at in one:
        np.testing.assert_array_equal(one[at], two[at])
    shutil.rmtree(straight)
    shutil.rmtree(broken)


KILLED = """
import sys
from rlweights.running.records.records import Records
records, step = Records(sys.argv[1]), 0
while True:
    step += 1
    records.write(step, {"a": step, "b": step / 3} | ({"c": step} if step > 500 else {}))
    if step == 1000:
        print("running", flush=True)
"""


def test_a_real_kill_loses_nothing(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"running\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    assert int(rows_of(tmp_path)[-2]["env_steps"]) >= 1000
    with Records(tmp_path, resume_step=990) as records:
        for step in range(991, 1001):
            records.write(step, {"a": -step})
    series = read_scalars(tmp_path)["a"]
    assert [step for step, _ in series] == list(range(1, 1001))
    assert [value for _, value in series] == [*range(1, 991), *(-step for step in range(991, 1001))]
    assert [int(row["env_steps"]) for row in rows_of(tmp_path)] == list(range(1, 1001))


def test_resuming_before_anything_was_recorded(tmp_path):
    with Records(tmp_path) as records:
        record(records, range(1, 4))
    with Records(tmp_path, resume_step=0) as records:
        records.write(1, {"a": 1.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"
    assert read_scalars(tmp_path) == {"a": [(1, 1.0)]}


def test_a_new_run_does_not_write_into_another_one(tmp_path):
    Records(tmp_path).close()
    before = (tmp_path / CSV).read_bytes()
    with pytest.raises(RecordsError, match="holds records already"):
        Records(tmp_path)
    assert (tmp_path / CSV).read_bytes() == before


@pytest.mark.parametrize("explicit", [True, False])
def test_a_run_that_goes_back_forgets_what_lay_ahead(tmp_path, explicit):
    with Records(tmp_path) as records:
        record(records, range(1, 8), offset=0.25)
        if explicit:
            records.rewind(3)
        records.write(4, {"train/loss": 0.0})
    assert [step for step, _ in read_scalars(tmp_path)["train/loss"]] == [1, 2, 3, 4]
    assert [row["env_steps"] for row in rows_of(tmp_path)] == ["1", "2", "3", "4"]
    assert rows_of(tmp_path)[-1]["train/loss"] == "0.0"


# Faults -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def files_no_larger_than(size: int):
    """Makes the system refuse to let files grow, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


LONG_TAGS = {f"a/rather/long/tag/{i}": 1.0 for i in range(30)}  # larger in the event file

LONG_VALUES = {chr(ord("a") + i): 1 / (i + 3) for i in range(20)}  # larger in the CSV


@pytest.mark.parametrize(("scalars", "file"), [(LONG_TAGS, "events.out"), (LONG_VALUES, CSV)])
def test_a_full_disk_is_said_and_what_was_recorded_is_intact(tmp_path, scalars, file):
    records = Records(tmp_path)
    written = 0

    def fill():
        nonlocal written
        for step in range(1, 10_000):
            records.write(step, scalars)
            written = step

    with files_no_larger_than(20_000), pytest.raises(RecordsError) as caught:
        fill()
    assert written > 10
    text = str(caught.value)
    assert "\n" not in text
    assert str(tmp_path / file) in text
    assert "cannot be written" in text
    assert "resume the run" in text
    with pytest.raises(RecordsError):  # room again: a gap must not go unnoticed
        records.write(written + 1, scalars)
    with pytest.raises(RecordsError):
        records.flush()
    records.close()

    with Records(tmp_path, resume_step=written) as records:
        records.write(written + 1, scalars)
    assert [int(row["env_steps"]) for row in rows_of(tmp_path)] == list(range(1, written + 2))
    for series in read_scalars(tmp_path).values():
        assert [step for step, _ in series] == list(range(1, written + 2))


@pytest.mark.parametrize("method", ["write", "histogram", "flush"])
def test_a_folder_that_vanished_is_noticed(tmp_path, method):
    folder = tmp_path / "run"
    folder.mkdir()
    records = Records(folder)
    records.write(1, {"a": 1.0})
    shutil.rmtree(folder)
    arguments = {"write": (2, {"a": 2.0}), "histogram": (2, "kernel", np.ones(3)), "flush": ()}[method]
    with pytest.raises(RecordsError, match=r"run/events.* has vanished"):
        getattr(records, method)(*arguments)
    records.close()


def test_a_folder_that_does_not_exist_is_said(tmp_path):
    with pytest.raises(RecordsError, match=r"nowhere: .*No such file"):
        Records(tmp_path / "nowhere")


def test_flush_reaches_both_files(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))
    )
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        synced.clear()
        records.flush()
        assert {Path(path) for path in synced} == {tmp_path / CSV, newest_event_file(tmp_path)}


# Cost ---------------------------------------------------------------------------------------------


def test_a_row_of_thirty_scalars_costs_little(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{f"group/tag_{i}": v for i, v in enumerate(rng.normal(size=30))} for _ in range(500)]
    costs = []
    with Records(tmp_path) as records:
        for step, row in enumerate(rows):
            started = time.thread_time()
            records.write(step, row)
            costs.append(time.thread_time() - started)
    assert statistics.median(costs) < 300e-6  # seconds of this thread; 80e-6 were measured
