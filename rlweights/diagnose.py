"""Says what is wrong with runs: `python -m rlweights.diagnose runs/cartpole/0-20260101-120000`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rlweights.running.diagnosis.judgement import Diagnosis


def diagnose(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; those of one agent are its seeds.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one page that can be sent around.")
    ] = None,
) -> None:
    """Say what is wrong with runs, and what to try."""
    from rlweights.backend import configure

    configure()
    from rlweights.errors import guarded
    from rlweights.running.diagnosis.judgement import judge, seeds_apart
    from rlweights.running.diagnosis.page import write_page
    from rlweights.running.diagnosis.record import RunRecord

    def session() -> int:
        records = [RunRecord.of(run) for run in runs]
        found = [judge(record) for record in records]
        if page is not None:
            write_page(page, records, found)
        if as_json:
            typer.echo(json.dumps([each.to_json() for each in found], indent=2))
            return 0
        for each in found:
            typer.echo("\n".join(told(each)) + "\n")
        if seeds := seeds_apart(records):
            typer.echo(seeds)
        if page is not None:
            typer.echo(f"wrote {page}")
        return 0

    raise typer.Exit(guarded(session))


def told(diagnosis: "Diagnosis") -> Sequence[str]:
    """Returns the lines of a diagnosis."""
    how = "" if diagnosis.final else ": notes, no verdict, before half of the budget"
    lines = [f"{diagnosis.run}: {diagnosis.env_steps:,} steps, {diagnosis.used:.0%} of the budget{how}"]
    if diagnosis.healthy:
        lines.append("healthy: none of the symptoms that are known")
    for number, finding in enumerate(diagnosis.findings, start=1):
        lines.append(f"{number}. {finding.symptom} ({finding.kind}, since step {finding.since:,})")
        lines.append(f"   {finding.text}")
        if finding.causes:
            lines.append(f"   likely     {'; '.join(finding.causes)}")
        lines += [f"   try        --set '{each}'" for each in finding.advice]
        if finding.confused:
            lines.append(f"   no fault   {finding.confused}")
        study = f", study {finding.study}" if finding.study else ""
        lines.append(f"   read       {finding.guide}{study}")
    if diagnosis.unjudged:
        tags = sorted(set(diagnosis.unjudged.values()))
        lines.append(f"not judged   {len(diagnosis.unjudged)} symptoms, for want of {', '.join(tags)}")
    return lines


def main() -> None:
    """Runs the command line."""
    typer.run(diagnose)


if __name__ == "__main__":
    main()
