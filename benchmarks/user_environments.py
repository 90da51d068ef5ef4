"""Tries every environment of a file through the command line, and prints what became of each.

    python benchmarks/user_environments.py FILE [CLASS ...] [--before PAGE] [--set CLASS:KEY=VALUE ...]

Each `gymnasium.Env` that the file defines is trained in a process of its own,
`python -m rlweights.train --env FILE:CLASS -n 4096`, with defaults but a short last evaluation; each class
that `--set` names is trained once more, with those keys. Prints a Markdown table: the environment, how it
ended, and the line that the command said. `--before` is a page with such a table, whose second column, what
an earlier version did, is taken over. Exits with 1 if any process said more than a line about what went
wrong, or took too long.
"""

import argparse
import importlib.util
import inspect
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym

SHORT = {
    "budget.total_timesteps": "4096",
    "evaluation.final_episodes": "5",
    "evaluation.film_frames": "0",
}
"""What differs from the defaults: less is waited for."""

PATIENCE = 300.0
"""Seconds that a process may take."""


class Ending(NamedTuple):
    """How a process ended."""

    code: int | None
    """Its exit code; None: it took too long."""
    line: str
    clean: bool
    """Whether it said one line about what went wrong, and no traceback."""

    def cells(self) -> str:
        """The ending as two cells of a Markdown table."""
        names = {0: "trained", 2: "refused", 3: "stopped", None: "no end"}
        name = names.get(self.code, f"exit code {self.code}") + ("" if self.clean else ", traceback")
        return f"{name} | {self.line.replace('|', chr(92) + '|')}"


def classes(file: Path) -> list[str]:
    """The environments that a file defines, in its order."""
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    found = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, gym.Env)]
    own = {name: getattr(module, name) for name in found}
    return [n for n, v in own.items() if v.__module__ == file.stem and v.__name__ == n]


def trained(environment: str, folder: Path, changes: Sequence[str] = ()) -> Ending:
    """Trains in an environment, in a process of its own.

    Args:
        environment: What `--env` is.
        folder: What relative files are relative to.
        changes: Keys of the agent file, KEY=VALUE.
    """
    words = [word for k, v in SHORT.items() for word in ("--set", f"{k}={v}")]
    words += [word for each in changes for word in ("--set", each)]
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "rlweights.train", "--env", environment, "--runs", runs, *words]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that workers can be ended with it
        )
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Ending(None, f"killed after {PATIENCE:g} seconds", clean=False)
    clean = "Traceback" not in output + errors
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    if process.returncode == 0:
        said = re.findall(r"^reached +.*", output, re.MULTILINE) or ["no evaluation"]
    elif not said:
        said = [line for line in (errors.splitlines() or output.splitlines()) if line.strip()] or [""]
        clean = False
    line = re.sub(r" +", " ", said[-1].removeprefix("error: ").removeprefix("reached").strip())
    line = re.sub(re.escape(runs) + r"[^ ]*?/\d+-\d+-\d+", "RUN", line)
    return Ending(process.returncode, line.replace(f"{folder}{os.sep}", ""), clean)


def rows(file: Path, names: Sequence[str], keys: Sequence[str]) -> Iterator[tuple[str, Ending]]:
    """Tries environments one after the other; yields what a row of the table is about, and how it ended."""
    for name in names:
        mine = [each.partition(":")[2] for each in keys if each.partition(":")[0] == name]
        for changes in ((), mine) if mine else ((),):
            label = f"`{name}`" + "".join(f", `{each}`" for each in changes)
            yield label, trained(f"{file.name}:{name}", file.parent, changes)


def second_column(page: Path) -> dict[str, str]:
    """The second cell of each row of the tables in a page, by the first one."""
    cells = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    return {each[0].removeprefix("| "): each[1] for each in cells}


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries the environments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("names", nargs="*", metavar="CLASS")
    parser.add_argument("--before", type=Path, metavar="PAGE")
    parser.add_argument("--set", dest="keys", action="append", default=[], metavar="CLASS:KEY=VALUE")
    options = parser.parse_args(arguments)
    file = options.file.resolve()
    known = classes(file)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"{file.name} defines no environment {unknown[0]!r}; it has: {', '.join(known)}")
    before = second_column(options.before) if options.before else None
    print(f"| environment | {'' if before is None else 'before | '}ended | the line said |")
    print("|---|---|---|" + ("" if before is None else "---|"))
    bad = 0
    for label, ending in rows(file, options.names or known, options.keys):
        old = "" if before is None else f"{before.get(label, '')} | "
        print(f"| {label} | {old}{ending.cells()} |", flush=True)
        bad += not ending.clean
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
