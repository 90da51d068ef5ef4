"""A diagnosis as one page of HTML: findings, curves as SVG, the agent; nothing is loaded from elsewhere."""

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlweights.errors import ConfigError
from rlweights.running import files
from rlweights.running.diagnosis.judgement import Diagnosis, Finding
from rlweights.running.diagnosis.record import RunRecord, ScalarSeries

CURVES = (
    *("rollout/ep_rew_mean", "eval/mean_reward", "rollout/ep_len_mean", "train/approx_kl"),
    *("train/clip_fraction", "train/explained_variance", "train/entropy_loss", "train/std"),
    *("rollout/return_std", "update/grad_norm", "update/update_to_weight_ratio", "update/skipped"),
)
"""The scalars that are drawn, in this order, where the run has them."""

WIDTH, HEIGHT = 300, 110
"""Of a curve, in pixels."""

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
body { color: #222; background: #fff }
h1 { font-size: 1.3rem } h2 { font-size: 1.1rem; margin-top: 2rem }
code, pre { font: 13px/1.45 ui-monospace, monospace; background: #f4f4f4 }
pre { padding: 1rem; overflow: auto }
li { margin-bottom: 1rem } .kind { color: #777 } .well { color: #007a53 }
.curves { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0 }
figcaption { font-size: 12px; color: #777 } svg { background: #fafafa }
polyline { fill: none; stroke: #0072B2; stroke-width: 1.5 } text { font-size: 10px; fill: #777 }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd } code, pre, svg { background: #262626 }
}
"""


def write_page(path: Path, runs: Sequence[RunRecord], found: Sequence[Diagnosis]) -> None:
    """Writes the diagnoses of some runs.

    Args:
        path: The file.
        runs: The runs.
        found: The diagnosis of each.

    Raises:
        ConfigError: If the file cannot be written.
    """
    parts = [_run(run, diagnosis) for run, diagnosis in zip(runs, found, strict=True)]
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>rlweights: diagnosis</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"{''.join(parts)}</body></html>\n"
    )
    try:
        files.write(path, text.encode())
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror or error}") from None


def _run(record: RunRecord, diagnosis: Diagnosis) -> str:
    how = "" if diagnosis.final else " Before half of the budget these are notes, no verdict."
    drawn = [tag for tag in CURVES if tag in record.table and len(record.table[tag].values) > 1]
    curves = "".join(_figure(tag, record.table[tag], diagnosis.findings) for tag in drawn)
    well = '<p class="well">Healthy: none of the symptoms that are known.</p>' if diagnosis.healthy else ""
    return (
        f"<h1>{html.escape(diagnosis.run)}</h1>"
        f"<p>{diagnosis.env_steps:,} steps, {diagnosis.used:.0%} of the budget.{how}</p>{well}"
        f"<ol>{''.join(map(_finding, diagnosis.findings))}</ol>"
        f'<h2>Curves</h2><div class="curves">{curves}</div>'
        f"<h2>The agent</h2><pre>{html.escape(record.agent.to_toml())}</pre>"
    )


def _finding(finding: Finding) -> str:
    advice = "".join(f"<br><code>--set '{html.escape(each)}'</code>" for each in finding.advice)
    likely = f"<br>Likely: {html.escape('; '.join(finding.causes))}." if finding.causes else ""
    confused = f"<br>No fault: {html.escape(finding.confused)}." if finding.confused else ""
    return (
        f'<li><b>{finding.symptom}</b> <span class="kind">{finding.kind}, since step {finding.since:,}</span>'
        f"<br>{html.escape(finding.text)}{likely}{advice}{confused}</li>"
    )


def _figure(tag: str, series: ScalarSeries, findings: Sequence[Finding]) -> str:
    """One curve, with a mark where the first finding begins."""
    steps, values = series.steps.astype(float), series.values
    kept = np.isfinite(values)
    steps, values = steps[kept], values[kept]
    if len(values) < 2:
        return ""
    low, high, first, last = values.min(), values.max(), steps[0], steps[-1]
    x = (steps - first) / max(last - first, 1.0) * WIDTH
    y = HEIGHT - 15 - (values - low) / max(high - low, 1e-12) * (HEIGHT - 30)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    mark = ""
    if findings and first <= findings[0].since <= last:
        place = (findings[0].since - first) / max(last - first, 1.0) * WIDTH
        ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="0" y2="{HEIGHT}"'
        mark = f'<line {ends} stroke="#D55E00" stroke-dasharray="3"/>'
    return (
        f'<figure><svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{tag}">{mark}'
        f'<polyline points="{points}"/><text x="2" y="11">{high:.4g}</text>'
        f'<text x="2" y="{HEIGHT - 3}">{low:.4g}</text>'
        f'<text x="{WIDTH - 2}" y="{HEIGHT - 3}" text-anchor="end">{last:,.0f} steps</text></svg>'
        f"<figcaption>{tag}</figcaption></figure>"
    )
