"""What notebooks show: facts as a table, and a bar that moves."""

import html
import sys
import time
from collections.abc import Mapping
from typing import Any


def in_notebook() -> bool:
    """Whether this process works for a notebook, which shows HTML and has no terminal."""
    found = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = found() if found is not None else None
    return shell is not None and hasattr(shell, "kernel")


def table(title: str, facts: Mapping[str, Any]) -> str:
    """Returns facts as an HTML table below a title; nothing in them is taken for HTML."""
    rows = "".join(
        f'<tr><td style="text-align:left"><b>{html.escape(name)}</b></td>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<div><b>{html.escape(title)}</b><table>{rows}</table></div>"


class NotebookBar:
    """A bar below the cell that is running.

    Args:
        total: What it counts to.
    """

    EVERY = 0.25
    """Seconds between two pictures of it at least."""

    def __init__(self, total: int):
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self._total, self._html, self._due = total, HTML, 0.0
        self._handle = display(HTML(self._picture(0, "")), display_id=True)

    def move(self, step: int, text: str) -> None:
        """Shows how far it is, with a few words, unless that was shown a moment ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self.EVERY
            self._handle.update(self._html(self._picture(step, text)))

    def close(self) -> None:
        """Takes it away."""
        self._handle.update(self._html(""))

    def _picture(self, step: int, text: str) -> str:
        done = min(step, self._total)
        return (
            f'<progress value="{done}" max="{self._total}" style="width:20em"></progress> {html.escape(text)}'
        )
