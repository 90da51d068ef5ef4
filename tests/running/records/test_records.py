"""Records read back by TensorBoard's own readers, after kills, full disks and clocks that were set back."""

import contextlib
import csv
import io
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
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.util import tensor_util

from rlweights.errors import RecordsError
from rlweights.running.records import layout
from rlweights.running.records.csv_file import _shortest
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import BUCKETS, Records
from rlweights.running.video import gif

CSV = "progress.csv"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / CSV).open(newline="") as file:
        return list(csv.DictReader(file))


def tensors_of(folder: Path, tag: str) -> dict[int, np.ndarray]:
    """The tensors of a tag by step; fails if a step is there twice."""
    events = EventAccumulator(str(folder), size_guidance={TENSORS: 0}).Reload()
    found = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
    assert len(dict(found)) == len(found)
    return dict(found)


def newest_event_file(folder: Path) -> Path:
    return max(folder.glob("events.out.tfevents.*"))


def record(records: Records, steps, offset: float = 0.0) -> None:
    """What a run does: a row each step, sometimes an evaluation, a histogram, a late column."""
    for step in steps:
        row = {"train/loss": step / 3 + offset, "rollout/ep_rew_mean": math.nan if step < 3 else 0.1 * step}
        records.write(step, row | {"time/fps": time.perf_counter()})
        if step % 4 == 0:
            records.histogram(step, "kernel", np.arange(9.0) * step + offset)
            records.write(step, {"eval/mean_reward": -1.5 * step + offset})


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


def test_more_scalars_than_tensorboard_keeps_by_default(tmp_path):
    with Records(tmp_path) as records:
        for step in range(11_000):
            records.write(step, {"a": step})
    assert len(read_scalars(tmp_path)["a"]) == 11_000


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


def test_two_writes_at_one_step_make_one_row(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(1, {"b": 2.0})
        records.write(2, {"a": 0.123456789012345})
        records.write(2, {"a": 3.0, "b": 4.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a,b\n1,1.0,2.0\n2,3.0,4.0\n"


def test_late_columns_leave_the_rows_as_they_were(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"b, with comma": 2.0})
        records.write(3, {"c": 3.0, "a": 4.0})
        assert [list(row.values()) for row in rows_of(tmp_path)] == [
            ["1", "1.0", "", ""],
            ["2", "", "2.0", ""],
            ["3", "4.0", "", "3.0"],
        ]
    assert list(rows_of(tmp_path)[0]) == ["env_steps", "a", "b, with comma", "c"]


def test_every_row_is_in_the_files_when_write_returns(tmp_path):
    records = Records(tmp_path)
    for step in range(1, 4):
        records.write(step, {"a": step})
        assert rows_of(tmp_path)[-1] == {"env_steps": str(step), "a": f"{step}.0"}
        assert read_scalars(tmp_path)["a"][-1] == (step, step)
    records.close()


@given(
    st.one_of(
        st.floats(allow_nan=False, width=32, allow_subnormal=False),
        st.floats(allow_nan=False, allow_subnormal=False),
    )
)
@settings(deadline=None)
def test_numbers_read_back_exactly_from_their_shortest_text(value):
    (text,) = _shortest([value])
    assert len(text) <= len(repr(value))
    with np.errstate(over="ignore"):
        single = float(np.float32(value)) == value
        assert (float(np.float32(text)) if single else float(text)) == value


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


def test_a_tensorboard_that_looks_on_forgets_what_is_stale(tmp_path):
    watching = plugin_event_accumulator.EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    with Records(tmp_path) as records:
        record(records, range(1, 10), offset=0.25)
    watching.Reload()
    assert [event.step for event in watching.Tensors("train/loss")] == list(range(1, 10))
    with Records(tmp_path, resume_step=5) as records:
        watching.Reload()
        assert [event.step for event in watching.Tensors("train/loss")] == list(range(1, 6))
        assert [event.step for event in watching.Tensors("kernel")] == [4]
        record(records, range(6, 9))
        watching.Reload()
        assert [event.step for event in watching.Tensors("train/loss")] == list(range(1, 9))


def test_a_clock_that_was_set_back_does_not_change_the_order(tmp_path, monkeypatch):
    with Records(tmp_path) as records:
        record(records, range(1, 6))
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    with Records(tmp_path, resume_step=5) as records:
        record(records, range(6, 9))
    assert [step for step, _ in read_scalars(tmp_path)["train/loss"]] == list(range(1, 9))


def test_resuming_at_a_recorded_step_adds_to_its_row(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"a": 2.0})
    with Records(tmp_path, resume_step=2) as records:
        records.write(2, {"eval": 3.0})
        records.write(3, {"a": 4.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a,eval\n1,1.0,\n2,2.0,3.0\n3,4.0,\n"


def test_a_torn_line_is_never_taken_for_a_number(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"a": 12.25})
    os.truncate(tmp_path / CSV, (tmp_path / CSV).stat().st_size - 2)
    assert (tmp_path / CSV).read_text().endswith("\n2,12.2")
    Records(tmp_path, resume_step=2).close()
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"


def test_columns_of_dropped_rows_are_dropped(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.write(2, {"b": 2.0})
    Records(tmp_path, resume_step=1).close()
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"


def test_resuming_before_anything_was_recorded(tmp_path):
    with Records(tmp_path) as records:
        record(records, range(1, 4))
    with Records(tmp_path, resume_step=0) as records:
        records.write(1, {"a": 1.0})
    assert (tmp_path / CSV).read_text() == "env_steps,a\n1,1.0\n"
    assert read_scalars(tmp_path) == {"a": [(1, 1.0)]}


def test_the_end_of_an_interrupted_session_does_not_outlive_the_resume(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        records.summary(layout.hparams_end(success=False), 1)
    Records(tmp_path, resume_step=1).close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["tensors"] == []
    assert events.Tags()["scalars"] == ["a"]


def test_an_event_file_that_is_damaged_keeps_what_lies_before_the_damage(tmp_path):
    with Records(tmp_path) as records:
        record(records, range(1, 4))
        start = newest_event_file(tmp_path).stat().st_size
        record(records, range(4, 9))
    with newest_event_file(tmp_path).open("r+b") as file:
        file.seek(start + 20)
        file.write(b"damage")
    with Records(tmp_path, resume_step=8) as records:
        record(records, range(9, 10))
    assert [step for step, _ in read_scalars(tmp_path)["train/loss"]] == [1, 2, 3, 9]


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


# Everything else ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32),
        np.array([1.0, 1.0 + 1e-7, -4.0]),
        np.full(5, 0.25),
        np.array([7.0]),
    ],
)
def test_histograms_equal_tensorboards_own(tmp_path, values):
    with Records(tmp_path) as records:
        records.histogram(3, "kernel", values)
    found = tensors_of(tmp_path, "kernel")[3]
    expected = tensor_util.make_ndarray(histogram_pb("kernel", values).value[0].tensor)
    assert found.shape == expected.shape == (BUCKETS, 3)
    np.testing.assert_allclose(found[:, :2], expected[:, :2], rtol=1e-12)
    # A value on an edge may be counted on either side of it.
    np.testing.assert_allclose(np.cumsum(found[:, 2]), np.cumsum(expected[:, 2]), atol=1)
    assert found[:, 2].sum() == values.size
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.SummaryMetadata("kernel").plugin_data.plugin_name == "histograms"


def test_empty_buckets_reach_to_a_bound_that_no_value_touches(tmp_path):
    values = np.array([-1.0, 0.5, 1.0])
    with Records(tmp_path) as records:
        records.histogram(1, "within", values, bound=4.0, buckets=2)
        records.histogram(1, "at it", values, bound=1.0, buckets=2)
        records.histogram(1, "beyond", values, bound=0.75, buckets=2)
    inner = [[-1.0, 0.0, 1.0], [0.0, 1.0, 2.0]]
    assert tensors_of(tmp_path, "within")[1].tolist() == [[-4.0, -1.0, 0.0], *inner, [1.0, 4.0, 0.0]]
    assert tensors_of(tmp_path, "at it")[1].tolist() == inner
    assert tensors_of(tmp_path, "beyond")[1].tolist() == inner


def test_histograms_are_of_finite_values(tmp_path):
    with Records(tmp_path) as records:
        records.histogram(1, "some", np.array([np.nan, 1.0, np.inf, 3.0, -np.inf]), buckets=2)
        records.histogram(1, "none", np.array([np.nan]))
        records.histogram(1, "empty", np.zeros([0, 3]))
    assert tensors_of(tmp_path, "some")[1].tolist() == [[1.0, 2.0, 1.0], [2.0, 3.0, 1.0]]
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["tensors"] == ["some"]


def test_text_is_read_back(tmp_path):
    with Records(tmp_path) as records:
        records.text(0, "agent", "**bold**, and ü")
    assert tensors_of(tmp_path, "agent")[0].item().decode() == "**bold**, and ü"
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.SummaryMetadata("agent").plugin_data.plugin_name == "text"


def pictures(count: int, height: int = 20, width: int = 30) -> list[np.ndarray]:
    """Frames in which a red square walks over a blue ground."""
    frames = np.zeros([count, height, width, 3], np.uint8)
    frames[..., 2] = 200
    for i, frame in enumerate(frames):
        frame[5:9, i : i + 4] = (250, 10, 10)
    return list(frames)


def test_an_animation_decodes_to_its_frames(tmp_path):
    frames = pictures(12)
    with Records(tmp_path) as records:
        records.animation(5, "episode", gif(frames, fps=25), (20, 30))
    width, height, encoded = tensors_of(tmp_path, "episode")[5]
    assert (width, height) == (b"30", b"20")
    animated = Image.open(io.BytesIO(encoded))
    assert (animated.format, animated.n_frames, animated.info["loop"]) == ("GIF", 12, 0)
    for i, frame in enumerate(frames):
        animated.seek(i)
        assert animated.info["duration"] == 40
        difference = np.abs(np.asarray(animated.convert("RGB"), int) - frame)
        assert difference.max() <= 8
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.SummaryMetadata("episode").plugin_data.plugin_name == "images"


def test_an_animation_may_be_one_frame_and_faster_than_browsers():
    assert Image.open(io.BytesIO(gif(pictures(1)))).n_frames == 1
    assert Image.open(io.BytesIO(gif(pictures(3), fps=200))).info["duration"] == 20


@pytest.mark.parametrize("count", [150, 2_000])
def test_an_animation_in_which_nothing_happens_for_long(count):
    """Frames that are alike become one, and no frame is shown for more than 655 seconds."""
    still = Image.open(io.BytesIO(gif([np.zeros((8, 8, 3), np.uint8)] * count, fps=0.01)))
    assert still.n_frames == 1
    assert still.info["duration"] == min(500 * count, 600_000)


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


def test_a_csv_that_vanished_is_noticed(tmp_path):
    with Records(tmp_path) as records:
        records.write(1, {"a": 1.0})
        (tmp_path / CSV).unlink()
        with pytest.raises(RecordsError, match=r"progress\.csv: .* has vanished"):
            records.write(2, {"a": 2.0})


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
