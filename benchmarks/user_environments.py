"""Tries environments as users bring them through the command line, and prints what became of each.

    python benchmarks/user_environments.py [CLASS ...] [--files FILE ...] [--folder FOLDER] [--before PAGE]

Each `gymnasium.Env` that the files define is trained in a process of its own,
`python -m rlweights.train --env FILE:CLASS`, for 4,096 steps and with a short last evaluation, otherwise with
defaults, or with what the file's `SETTINGS` say. Prints a Markdown table: the environment, what it brings,
the exit code, and the last line that the command said.

`--before PAGE` takes over what a page says of an earlier version. `--package CHECKOUT --by-id` prints such a
page: the package of that checkout trains in environments that are registered by an id. Exits with 1 if a
process said more than a line about what went wrong, or took too long.
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
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import gymnasium as gym

ROOT = Path(__file__).parents[1]
FILES = ["support/user_environments.py", "support/user_simulators.py"]
"""The environments that docs/user-environments.md is about, in the folder `tests`."""

SHORT = {
    "budget.total_timesteps": "4096",
    "evaluation.final_episodes": "5",
    "evaluation.film_frames": "0",
}
"""What differs from the defaults: less is waited for."""

REGISTRATION = """
import sys

import gymnasium

sys.path.insert(0, {folder!r})
from {module} import {name}

gymnasium.register("{name}-v0", {name})
"""
"""A module that registers an environment, for versions that know ids alone."""


class Ending(NamedTuple):
    """How a process ended."""

    code: int | None
    """Its exit code; None: it took too long."""
    line: str
    clean: bool
    """Whether it said one line about what went wrong, and no traceback."""

    def cell(self) -> str:
        """The ending as a cell of a Markdown table."""
        code = "no end" if self.code is None else str(self.code)
        line = self.line if len(self.line) <= 400 else f"{self.line[:400]}..."
        escaped = re.sub(r"([|*<]|(?<!\w)_|_(?!\w)|(?<=_)_|_(?=_))", r"\\\1", line)
        return f"**{code}** {'' if self.clean else '(no clean line) '}{escaped}"


class Trials:
    """Trains in environments, each in a process of its own.

    Args:
        folder: The current folder of the processes.
        package: The checkout whose package trains.
        by_id: Whether environments are registered, and found by an id.
        patience: Seconds that a process may take.
    """

    def __init__(self, folder: Path, package: Path, by_id: bool, patience: float):
        self._folder, self._package, self._by_id, self._patience = folder, package, by_id, patience

    def train(self, file: str, name: str, changes: Sequence[str]) -> Ending:
        """Trains in one environment.

        Args:
            file: The Python file that defines it.
            name: Its class.
            changes: Keys of the agent file, KEY=VALUE.
        """
        with tempfile.TemporaryDirectory() as runs:
            if self._by_id:
                module = file.removesuffix(".py").replace("/", ".")
                source = REGISTRATION.format(folder=str(self._folder), module=module, name=name)
                Path(runs, "registration.py").write_text(source, encoding="utf-8")
                return self._ended(f"registration:{name}-v0", Path(runs), runs, changes)
            return self._ended(f"{file}:{name}", self._folder, runs, changes)

    def _ended(self, environment: str, folder: Path, runs: str, changes: Sequence[str]) -> Ending:
        words = [word for k, v in SHORT.items() for word in ("--set", f"{k}={v}")]
        words += [word for each in changes for word in ("--set", each)]
        process = subprocess.Popen(
            [sys.executable, "-m", "rlweights.train", "--env", environment, "--runs", runs, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(self._package), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that workers can be ended with it
        )
        try:
            output, errors = process.communicate(timeout=self._patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Ending(None, f"killed after {self._patience:g} seconds", clean=False)
        line, clean = last_line(process.returncode, output, errors)
        line = re.sub(re.escape(runs) + r"[^ ]*?/\d+-\d+(T[\d:]+|-\d+)", "RUN", line)
        return Ending(process.returncode, line.replace(f"{folder}{os.sep}", ""), clean)


def last_line(code: int, output: str, errors: str) -> tuple[str, bool]:
    """Returns what a process said of its end, and whether that was one line of what went wrong."""
    clean = "Traceback" not in output + errors
    said = [line for line in errors.splitlines() if line.startswith("error: ")]
    if code == 0:
        said = re.findall(r"^reached +.*", output, re.MULTILINE) or ["no evaluation"]
    elif not said:
        said = [line for line in (errors.splitlines() or output.splitlines()) if line.strip()] or [""]
        clean = False
    line = said[-1].removeprefix("error: ").removeprefix("reached").strip()
    return re.sub(r" +", " ", line), clean


def loaded(file: Path) -> ModuleType:
    """A Python file as a module."""
    name = f"brought_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def environments(module: ModuleType) -> dict[str, type[gym.Env]]:
    """The environments that a module defines itself, by their names, in its order."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, gym.Env)
        and (value.__module__, value.__name__) == (module.__name__, name)
    }


def labelled(name: str, changes: Sequence[str]) -> str:
    """What a row of the table is about."""
    return ", ".join(f"`{each}`" for each in (name, *changes))


def earlier(page: Path) -> dict[str, str]:
    """What a page's table says of an earlier version, by the first cell of each row.

    That is its column "before" or, in the table of the earlier version itself, the last one.
    """
    found: dict[str, str] = {}
    column = -1
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
        if "before" in cells:
            column = cells.index("before")
        elif line[:3] == "| `":
            found[cells[0]] = cells[column]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries the environments; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CLASS")
    parser.add_argument("--files", nargs="+", default=FILES, metavar="FILE", help="relative to the folder")
    parser.add_argument("--folder", type=Path, default=ROOT / "tests")
    parser.add_argument("--before", type=Path, metavar="PAGE")
    parser.add_argument("--package", type=Path, default=ROOT, metavar="CHECKOUT")
    parser.add_argument("--by-id", action="store_true")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds that a process may take")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    sys.path.insert(0, str(folder))
    modules = {file: loaded(folder / file) for file in options.files}
    known = [name for module in modules.values() for name in environments(module)]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no environment {unknown[0]!r}; there are: {', '.join(known)}")
    before = earlier(options.before) if options.before else None
    trials = Trials(folder, options.package.resolve(), options.by_id, options.patience)
    columns = ["environment", "what it brings", *([] if before is None else ["before"]), "ended"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    bad = 0
    for file, module in modules.items():
        for name, made in environments(module).items():
            if options.names and name not in options.names:
                continue
            for changes in getattr(module, "SETTINGS", {}).get(name, [[]]):
                ending, label = trials.train(file, name, changes), labelled(name, changes)
                old = [] if before is None else [before.get(label, "")]
                brings = " ".join((made.__doc__ or "").split())
                print("| " + " | ".join([label, brings, *old, ending.cell()]) + " |", flush=True)
                bad += not ending.clean
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
