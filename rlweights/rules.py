"""Prints the catalogue of rules, or one of its cards: `python -m rlweights.rules [NAME]`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

DOCS = Path(__file__).parents[1] / "docs"


def rules(
    name: Annotated[str, typer.Argument(help="A rule, as agent files name it; none: the list.")] = "",
    page: Annotated[bool, typer.Option("--page", help="Print docs/catalogue.md.")] = False,
) -> None:
    """List the rules, or show the card of one."""
    from rlweights.backend import configure

    configure()
    from rlweights.errors import ConfigError, guarded
    from rlweights.weights import gallery

    def session() -> int:
        if page:
            typer.echo(gallery.page(costs(), pictures()), nl=False)
        elif name:
            try:
                card = gallery.Card(name.replace("-", "_"))
            except ValueError as error:
                raise ConfigError(str(error)) from None
            Console().print(Markdown(card.markdown(costs().get(card.name, ""))))
        else:
            table = Table(box=None, pad_edge=False)
            for column in ("rule", "acts", "what it does"):
                table.add_column(column, no_wrap=column != "what it does")
            for row in gallery.rows():
                table.add_row(*row)
            Console().print(table)
        return 0

    if status := guarded(session):
        raise typer.Exit(status)


def costs() -> dict[str, str]:
    """Returns what was measured by `benchmarks/rules.py`, in words, by rule; nothing without a checkout."""
    path = DOCS / "rules" / "costs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def pictures() -> dict[str, str]:
    """Returns the pictures of the gallery by rule, as its page names them."""
    return {path.stem.removeprefix("rule_"): f"images/{path.name}" for path in DOCS.glob("images/rule_*.png")}


if __name__ == "__main__":
    typer.run(rules)
