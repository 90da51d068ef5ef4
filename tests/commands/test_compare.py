"""`rlweights compare`: tables, pictures and boards of several runs."""

import shutil
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.util import tensor_util

from rlweights.running.records.event_file import read_scalars
from rlweights.running.records.records import Records
from support.commandline import refused


@pytest.fixture
def groups(run, tmp_path):
    """Two seeds of one agent and one of another: copies of one run."""
    names = ("first/0", "first/1", "second/0")
    return [shutil.copytree(run, tmp_path / name) for name in names]


def test_compare_is_a_table_of_interquartile_means(rlweights, groups):
    code, output, error = rlweights("compare", *groups, "--points", 4)
    assert (code, error) == (0, "")
    title, heading, *rows = output.splitlines()
    assert title.startswith("rollout/ep_rew_mean: interquartile mean over seeds")
    assert heading.split() == ["steps", "first", "(2", "seeds)", "second", "(1", "seed)"]
    assert len(rows) == 4
    series = read_scalars(groups[0])["rollout/ep_rew_mean"]
    for row, (step, value) in zip(rows, series, strict=True):
        cell = f"{value:.1f} [{value:.1f}, {value:.1f}]"
        assert row.split("  ")[-1].strip() == cell
        assert row.count(cell) == 2
        assert row.split()[0] == f"{step:,}"


def test_compare_takes_any_tag_and_names_those_there_are(rlweights, groups):
    code, output, _ = rlweights("compare", *groups, "--tag", "train/approx_kl", "--points", 2)
    assert code == 0
    assert output.startswith("train/approx_kl")
    error = refused(rlweights("compare", *groups, "--tag", "train/kl"))
    assert "holds no 'train/kl'" in error
    assert "train/approx_kl" in error


def test_compare_draws_the_curves(rlweights, groups, tmp_path):
    pytest.importorskip("matplotlib", reason="needs rlweights[plot]")
    picture = tmp_path / "curves.svg"
    code, output, error = rlweights("compare", *groups, "--plot", picture)
    assert (code, error) == (0, "")
    assert output.endswith(f"wrote {picture}\n")
    drawn = picture.read_text()
    for text in ("first (2 seeds)", "second (1 seed)", "rollout/ep_rew_mean", "environment steps"):
        assert f"<!-- {text}" in drawn
    assert drawn.count('id="FillBetween') == 2


def test_a_folder_of_runs_stands_for_all_of_them(rlweights, groups):
    folders = list(dict.fromkeys(each.parent for each in groups))
    assert rlweights("compare", *folders) == rlweights("compare", *groups)


def test_compare_refuses_pictures_before_it_reads(rlweights, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="needs rlweights[plot]")
    error = refused(rlweights("compare", tmp_path, "--plot", tmp_path / "curves.txt"))
    assert "takes a file that ends in one of" in error
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refused(rlweights("compare", tmp_path, "--plot", tmp_path / "curves.png"))
    assert error.endswith("matplotlib is not installed; pip install 'rlweights[plot]'\n")


def test_compare_refuses_runs_without_common_steps(rlweights, tmp_path):
    for name, steps in [("early", (1, 2)), ("late", (3, 4))]:
        (folder := tmp_path / name / "0").mkdir(parents=True)
        with Records(folder) as records:
            for step in steps:
                records.write(step, {"rollout/ep_rew_mean": 1.0})
    error = refused(rlweights("compare", *tmp_path.glob("*/0")))
    assert "one run begins at step 3, another ends at step 2" in error


def test_compare_writes_margin_charts_for_tensorboard(rlweights, groups, tmp_path):
    code, output, error = rlweights("compare", *groups, "--board", tmp_path / "board")
    assert (code, error) == (0, "")
    assert f"wrote {tmp_path / 'board'}" in output
    recorded = read_scalars(groups[0])["rollout/ep_rew_mean"]
    for name in ("first", "second"):
        series = read_scalars(tmp_path / "board" / name)
        assert set(series) == {"seeds/ep_rew_mean", "seeds/ep_rew_mean_lower", "seeds/ep_rew_mean_upper"}
        for points in series.values():
            assert len(points) == 200
            assert points[0] == pytest.approx(recorded[0])
            assert points[-1] == pytest.approx(recorded[-1])
        events = EventAccumulator(str(tmp_path / "board" / name)).Reload()
        (event,) = events.Tensors(custom_scalar_metadata.CONFIG_SUMMARY_TAG)
        layout = layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())
        ((chart,),) = [category.chart for category in layout.category]
        (shown,) = chart.margin.series
        assert {shown.value, shown.lower, shown.upper} == set(series)
    code, _, error = rlweights("compare", *groups, "--board", tmp_path / "board")
    assert code == 2
    assert error.startswith("error: --board")
    assert "holds records already" in error
