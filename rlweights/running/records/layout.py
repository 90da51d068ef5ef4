"""TensorBoard's layout of charts for this package, and its hparams tab."""

from collections.abc import Mapping
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams import summary as hparams_summary

CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "Learning": {
        "return while training": (r"rollout/ep_rew_(mean|min|max)",),
        "evaluation": (r"eval/mean_reward",),
        "episode length": (r"rollout/ep_len_mean", r"eval/mean_ep_length"),
        "explained variance": (r"train/explained_variance",),
        "losses": (r"train/policy_gradient_loss", r"train/value_loss"),
        "exploration: entropy loss, deviation of actions": (r"train/entropy_loss", r"train/std"),
    },
    "Stability": {
        "KL divergence, of all epochs and of the last one": (r"train/approx_kl(_last)?",),
        "share of clipped ratios": (r"train/clip_fraction",),
        "gradient norm before clipping, of all and of the policy": (r"update/(policy_)?grad_norm",),
        "update to weight ratio": (r"update/update_to_weight_ratio",),
        "skipped updates": (r"update/skipped",),
        "weight norms": (r"weights/.*/norm",),
        "distance from the initial weights": (r"weights/.*/distance_from_init",),
    },
    "Interventions": {
        "share of weights clipped, at their bound, recycled": (
            r"intervention/.*/(clipped|saturated|recycled)(/.*)?",
        ),
        "largest weight and its bound": (r"weights/.*/(max|bound)",),
        "noise": (r"intervention/.*/stddev",),
        "distance and its target": (r"intervention/.*/(distance|target)",),
        "relative change": (r"intervention/.*/relative_change",),
    },
    "Plasticity": {
        "dormant share": (r"plasticity/.*/dormant_share",),
        "effective rank": (r"plasticity/.*/effective_rank",),
        "saturated units": (r"plasticity/.*/saturated_units",),
    },
}
"""Charts by category: title and regular expressions of the tags.

They do not depend on the agent: TensorBoard shows each chart once only if the layouts of all runs are equal.
"""


def band(tag: str) -> tuple[str, str, str]:
    """Returns the tags of a value and of the bounds of its interval, as a margin chart draws them."""
    return tag, f"{tag}_lower", f"{tag}_upper"


MARGINS = {"evaluation, 95 % interval": band("eval/mean_reward")}
"""Charts with a band: title and the tags of value, lower and upper bound."""


def layout() -> Summary:
    """Returns the summary that lays out the custom scalars tab."""
    categories = []
    for title, charts in CATEGORIES.items():
        shown = [
            layout_pb2.Chart(
                title=name, multiline=layout_pb2.MultilineChartContent(tag=[f"^{p}$" for p in tags])
            )
            for name, tags in charts.items()
        ]
        if title == "Learning":
            shown += _margin_charts(MARGINS)
        categories.append(layout_pb2.Category(title=title, chart=shown))
    return _custom_scalars(categories)


def margins(title: str, charts: Mapping[str, tuple[str, str, str]]) -> Summary:
    """Returns the summary that lays out margin charts as one category.

    Args:
        title: Title of the category.
        charts: Title and `band` of each chart.
    """
    return _custom_scalars([layout_pb2.Category(title=title, chart=_margin_charts(charts))])


def _margin_charts(charts: Mapping[str, tuple[str, str, str]]) -> list[Any]:
    series = layout_pb2.MarginChartContent.Series
    return [
        layout_pb2.Chart(
            title=name,
            margin=layout_pb2.MarginChartContent(series=[series(value=value, lower=low, upper=high)]),
        )
        for name, (value, low, high) in charts.items()
    ]


def _custom_scalars(categories: list[Any]) -> Summary:
    return Summary.FromString(custom_scalar.pb(layout_pb2.Layout(category=categories)).SerializeToString())


def hyperparameters(config: Mapping[str, Any]) -> dict[str, bool | float | str]:
    """Flattens a configuration for the hparams tab: keys joined by dots, lists as text."""
    flat: dict[str, bool | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{name}": inner for name, inner in hyperparameters(value).items()}
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            tables = [each if isinstance(each, Mapping) else {"name": each} for each in value]  # of wrappers
            for i, entry in enumerate(tables):
                name = entry.get("name") or entry.get("rule") or str(i)
                flat |= {f"{key}.{name}.{k}": v for k, v in hyperparameters(entry).items() if k != "rule"}
        elif isinstance(value, bool | int | float | str):
            flat[key] = value
        elif value is not None:
            flat[key] = str(value)
    return flat


NO_HYPERPARAMETERS = ("description", "expect", "logging", "checkpoint")
"""Tables that change nothing of what is learned, and only stand between the columns that do."""


def hparams_start(config: Mapping[str, Any]) -> Summary:
    """Returns the summary that begins this session in the hparams tab, with all of its settings.

    No summary declares columns: TensorBoard would take the columns of the first run for all runs. Without
    one it collects the settings and metrics of all runs, and shows those that differ first.
    """
    told = {key: value for key, value in config.items() if key not in NO_HYPERPARAMETERS}
    start = hparams_summary.session_start_pb(hparams=hyperparameters(told))
    return Summary.FromString(start.SerializeToString())


def hparams_end(success: bool) -> Summary:
    """Returns the summary that ends this session in the hparams tab."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    return Summary.FromString(hparams_summary.session_end_pb(status).SerializeToString())
