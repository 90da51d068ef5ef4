"""Event files of a real run, read back by TensorBoard's own readers."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar_metadata
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util

from rlweights.running.config import agent_file
from rlweights.running.records import layout
from rlweights.running.records.records import BUCKETS, Records
from support.smallruns import small_run

GROUPS = ("train", "update", "weights", "plasticity", "intervention", "eval", "rollout")

WITHOUT_CHART = (
    r"train/learning_rate",  # a schedule that the agent file says already
    r"train/loss",  # the sum of the losses in the chart
    r"train/entropy_fraction",  # the entropy loss in other units
    r"rollout/(return_std|truncated_share|(reward|action|observation)_\w+)",  # what `diagnose` reads
    r"update/applied",  # what is not skipped
    r"update/nonfinite_\w+",  # explain a skipped update; zero otherwise
    r"weights/.*/rms",  # the norm says it, unless one looks for a reason
)
"""Tags that only the scalars tab shows."""

CONTINUOUS = "^train/std$"
"""What only agents with continuous actions record."""


@pytest.fixture(scope="module")
def run():
    return small_run()


@pytest.fixture(scope="module")
def events(run) -> EventAccumulator:
    accumulator = EventAccumulator(str(run), size_guidance={SCALARS: 0, TENSORS: 0})
    return accumulator.Reload()


def tags_of(events: EventAccumulator, plugin: str) -> list[str]:
    if plugin == "scalars":
        return events.Tags()["scalars"]
    return [
        tag
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == plugin
    ]


def steps_of(events: EventAccumulator, tag: str) -> list[int]:
    scalar = tag in events.Tags()["scalars"]
    return [event.step for event in (events.Scalars(tag) if scalar else events.Tensors(tag))]


def layout_of(events: EventAccumulator) -> layout_pb2.Layout:
    (event,) = events.Tensors(custom_scalar_metadata.CONFIG_SUMMARY_TAG)
    return layout_pb2.Layout.FromString(tensor_util.make_ndarray(event.tensor_proto).item())


def test_scalars_are_written_at_the_steps_of_the_environment(events):
    every_row = [256, 512, 768, 1024]
    for tag in ("train/approx_kl", "train/explained_variance", "update/grad_norm", "rollout/ep_rew_mean"):
        assert steps_of(events, tag) == every_row
    assert steps_of(events, "intervention/clipping/saturated") == every_row
    assert steps_of(events, "plasticity/policy/hidden_0/dormant_share") == [0, 512, 1024]
    assert steps_of(events, "weights/value/head/norm") == [0, 512, 1024]
    assert steps_of(events, "eval/mean_reward") == [512, 1024]


def test_scalars_equal_the_csv(run, events):
    with (run / "progress.csv").open(newline="") as file:
        rows = {int(row.pop("env_steps")): row for row in csv.DictReader(file)}
    scalars = [tag for tag in tags_of(events, "scalars") if not tag.startswith("time/")]
    assert set(scalars) == set(rows[1024])
    for tag in scalars:
        for event in events.Scalars(tag):
            assert np.float32(rows[event.step][tag]) == event.value


def test_the_evaluation_lies_within_its_interval(events):
    value, low, high = (
        [event.value for event in events.Scalars(f"eval/mean_reward{end}")]
        for end in ("", "_lower", "_upper")
    )
    assert all(a <= b <= c for a, b, c in zip(low, value, high, strict=True))
    assert low[-1] < high[-1]


def test_every_chart_of_the_layout_finds_a_recorded_tag(events):
    layout, scalars = layout_of(events), tags_of(events, "scalars")
    assert [each.title for each in layout.category] == [
        "Learning", "Stability", "Interventions", "Plasticity"
    ]  # fmt: skip
    for category in layout.category:
        assert category.chart
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                found = any(re.match(pattern, tag) for tag in scalars)
                assert found != (pattern == CONTINUOUS), (chart.title, pattern)
            for series in chart.margin.series:
                assert {series.value, series.lower, series.upper} <= set(scalars), chart.title
            assert chart.multiline.tag or chart.margin.series


def test_every_recorded_tag_is_in_a_chart_or_said_not_to_be(events):
    layout, scalars = layout_of(events), tags_of(events, "scalars")
    charts = [chart for category in layout.category for chart in category.chart]
    patterns = [pattern for chart in charts for pattern in chart.multiline.tag]
    exact = {tag for c in charts for s in c.margin.series for tag in (s.value, s.lower, s.upper)}
    in_groups = [tag for tag in scalars if tag.startswith(tuple(f"{group}/" for group in GROUPS))]
    assert {tag.partition("/")[0] for tag in in_groups} == set(GROUPS)
    left = [t for t in in_groups if t not in exact and not any(re.match(p, t) for p in patterns)]
    assert [t for t in left if not any(re.fullmatch(p, t) for p in WITHOUT_CHART)] == []
    stale = [p for p in WITHOUT_CHART if not any(re.fullmatch(p, t) for t in left)]
    assert stale == []


def test_the_page_explains_every_recorded_tag(events):
    page = (Path(__file__).parents[3] / "docs" / "tensorboard.md").read_text(encoding="utf-8")
    explained = [
        re.escape(name).replace("<rule>", "[^/]+").replace("<layer>", ".+")
        for name in re.findall(r"`([a-z]+/[a-z_<>/]+)`", page)
    ]
    scalars = tags_of(events, "scalars")
    assert [tag for tag in scalars if not any(re.fullmatch(p, tag) for p in explained)] == []


def test_hparams_session_has_values_and_an_end(run, events):
    def content(tag):
        return events.SummaryMetadata(tag).plugin_data.content

    start_tag = hparams_metadata.SESSION_START_INFO_TAG
    start = hparams_metadata.parse_session_start_info_plugin_data(content(start_tag))
    values = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()}
    agent = agent_file.load(run / "agent.toml")
    assert values["algorithm.gamma"] == agent.algorithm.gamma == 0.98
    assert values["algorithm.learning_rate.from"] == 1e-3
    assert values["environment.id"] == "CartPole-v1"
    assert values["network.hidden_sizes"] == "[64, 64]"
    assert values["network.layer_norm"] is False
    assert values["interventions.clipping.bound"] == 3.0
    assert values["interventions.adaptive_noise.target"] == 0.005
    assert values["budget.total_timesteps"] == 1024

    end_tag = hparams_metadata.SESSION_END_INFO_TAG
    end = hparams_metadata.parse_session_end_info_plugin_data(content(end_tag))
    assert end.status == api_pb2.STATUS_SUCCESS
    assert end.end_time_secs >= start.start_time_secs > 0


class HParamsTab:
    """What TensorBoard's own backend answers to its hparams tab."""

    def __init__(self, folder: Path):
        multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
        multiplexer.Reload()
        tensorboard = TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder)))
        self.context = backend_context.Context(tensorboard)

    def columns(self) -> api_pb2.Experiment:
        handler = get_experiment.Handler(RequestContext(), self.context, "", api_pb2.GetExperimentRequest())
        return handler.run()

    def sessions(self) -> dict[str, api_pb2.Session]:
        every = [
            *(api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE),
            *(api_pb2.STATUS_RUNNING, api_pb2.STATUS_UNKNOWN),
        ]
        request = api_pb2.ListSessionGroupsRequest(allowed_statuses=every, slice_size=10)
        found = list_session_groups.Handler(RequestContext(), self.context, "", request).run()
        return {session.name: session for group in found.session_groups for session in group.sessions}


def test_the_hparams_tab_lists_the_run_with_its_metrics(run, events):
    tab = HParamsTab(run.parent)
    scalars = tags_of(events, "scalars")
    assert {info.name.tag for info in tab.columns().metric_infos} == set(scalars)
    session = tab.sessions()[run.name]
    assert session.status == api_pb2.STATUS_SUCCESS
    shown = {metric.name.tag: (metric.training_step, metric.value) for metric in session.metric_values}
    assert shown.keys() == set(scalars)
    for tag, (step, value) in shown.items():
        last = events.Scalars(tag)[-1]
        assert (step, value) == (last.step, last.value)


def test_the_hparams_tab_shows_first_what_differs_between_runs(tmp_path):
    """Also where the first run that TensorBoard reads has no such rule."""
    for name, rules in {"a": [], "b": [{"rule": "clipping", "bound": 2.0}]}.items():
        (tmp_path / name).mkdir()
        with Records(tmp_path / name) as records:
            settings = {"algorithm": {"gamma": 0.9}, "interventions": rules, "seed": len(rules)}
            records.summary(layout.hparams_start(settings))
            records.write(1, {"eval/mean_reward": 1.0})
    infos = HParamsTab(tmp_path).columns().hparam_infos
    assert next((info.name, info.differs) for info in infos) == ("seed", True)
    assert {info.name for info in infos} >= {"algorithm.gamma", "interventions.clipping.bound"}


def test_charts_do_not_take_a_longer_tag_for_theirs():
    shown = layout_pb2.Layout.FromString(layout.layout().value[0].tensor.string_val[0])
    patterns = [p for category in shown.category for chart in category.chart for p in chart.multiline.tag]
    assert sum(bool(re.match(pattern, "eval/mean_reward")) for pattern in patterns) == 1
    assert not any(re.match(pattern, "eval/mean_reward_lower") for pattern in patterns)


def test_charts_find_what_rules_measure_by_layer():
    shown = layout_pb2.Layout.FromString(layout.layout().value[0].tensor.string_val[0])
    (interventions,) = (each for each in shown.category if each.title == "Interventions")
    patterns = [pattern for chart in interventions.chart for pattern in chart.multiline.tag]
    for tag in ("clipping/saturated/policy/hidden_0", "second/clipped", "recycling/recycled"):
        assert sum(bool(re.match(pattern, f"intervention/{tag}")) for pattern in patterns) == 1


def test_two_rules_of_one_kind_keep_their_own_hyperparameters():
    rules = [{"rule": "clipping", "bound": 1.0}, {"rule": "clipping", "name": "second", "bound": 2.0}]
    values = layout.hyperparameters({"interventions": rules})
    assert values["interventions.clipping.bound"] == 1.0
    assert values["interventions.second.bound"] == 2.0


@pytest.mark.parametrize("wrappers", [["A", {"name": "B", "size": 3}], [{"name": "B", "size": 3}, "A"]])
def test_wrappers_may_be_names_and_tables(wrappers):
    values = layout.hyperparameters({"environment": {"wrappers": wrappers}})
    assert values["environment.wrappers.B.size"] == 3
    assert values["environment.wrappers.A.name"] == "A"


def test_a_run_that_was_stopped_ends_as_a_failure():
    summary = layout.hparams_end(success=False)
    data = summary.value[0].metadata.plugin_data.content
    assert hparams_metadata.parse_session_end_info_plugin_data(data).status == api_pb2.STATUS_FAILURE


def test_the_agent_is_there_as_text(run, events):
    (event,) = events.Tensors("agent")
    text = tensor_util.make_ndarray(event.tensor_proto)[0].decode()
    assert text == f"```toml\n{(run / 'agent.toml').read_text()}\n```"


LAYERS = [
    f"{network}/{layer}" for network in ("policy", "value") for layer in ("hidden_0", "hidden_1", "head")
]


def histograms_of(events: EventAccumulator, tag: str) -> dict[int, np.ndarray]:
    return {event.step: tensor_util.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)}


def test_histograms_come_at_their_cadence_and_count_every_weight_and_gradient(events):
    tags = tags_of(events, "histograms")
    assert set(tags) == {f"{group}/{layer}/kernel" for group in ("weights", "gradients") for layer in LAYERS}
    for group in ("weights", "gradients"):
        assert steps_of(events, f"{group}/policy/hidden_0/kernel") == [1024]
        buckets = histograms_of(events, f"{group}/policy/hidden_1/kernel")[1024]
        assert len(buckets) <= BUCKETS + 2
        assert buckets[:, 2].sum() == 64 * 64
        assert (buckets[:, 0] < buckets[:, 1]).all()
    gradients = histograms_of(events, "gradients/policy/hidden_1/kernel")[1024]
    assert gradients[0, 0] < 0.0 < gradients[-1, 1]


def test_a_clipped_kernel_shows_its_bound(events):
    """The default agent: 3 / sqrt(fan_in), but for the value network's last layer."""
    for layer in LAYERS:
        bound = 1.5 if layer.endswith("hidden_0") else 3.0 / 8.0
        buckets = histograms_of(events, f"weights/{layer}/kernel")[1024]
        if layer == "value/head":
            assert f"weights/{layer}/bound" not in events.Tags()["scalars"]
            assert len(buckets) == BUCKETS
            continue
        assert [event.value for event in events.Scalars(f"weights/{layer}/bound")] == [bound] * 3
        largest = [event.value for event in events.Scalars(f"weights/{layer}/max")]
        assert max(largest[1:]) <= bound  # the first point is of the weights as they were drawn
        assert (buckets[0, 0], buckets[-1, 1]) == (-bound, bound)
        if largest[-1] < bound:
            assert len(buckets) > BUCKETS
            assert max(-buckets[1, 0], buckets[-2, 1]) == pytest.approx(largest[-1])


def test_event_files_stay_small(run):
    (file,) = run.glob("events.out.tfevents.*")
    assert file.stat().st_size < 100_000
