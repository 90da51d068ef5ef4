"""Event files read back by TensorBoard's own readers, after damage and clocks that were set back."""

import io
import os
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.util import tensor_util

from rlweights.errors import ConfigError, RecordsError
from rlweights.running.records import layout
from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import BUCKETS, Records
from rlweights.running.video import gif
from support.recorded import newest_event_file, pictures, record, tensors_of

# Scalars ------------------------------------------------------------------------------------------


def test_more_scalars_than_tensorboard_keeps_by_default(tmp_path):
    with Records(tmp_path) as records:
        for step in range(11_000):
            records.write(step, {"a": step})
    assert len(read_scalars(tmp_path)["a"]) == 11_000


# Resuming -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["events.out.tfevents.1.pipe", "progress.csv"])
def test_a_named_pipe_in_the_place_of_a_record_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(RecordsError, match="is no regular file"):
        Records(tmp_path, resume_step=0)
    if "tfevents" in name:
        with pytest.raises(ConfigError, match=rf"{name}: cannot be read: is no regular file"):
            read_scalars(tmp_path)
