"""What a session ran on: versions, commit, machine, command; for `run.json` and for TensorBoard."""

import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlweights.backend import cores, device, processor, threads
from rlweights.errors import RecordsError
from rlweights.running import files

FILE = "run.json"

PACKAGES = (
    "rlweights",
    "tensorflow",
    "keras",
    "gymnasium",
    "numpy",
    "mujoco",
    "ale-py",
    "minigrid",
    "envpool",
)
"""Packages whose versions are told, if they are installed."""


def provenance() -> dict[str, Any]:
    """Returns what this process runs on, as JSON can hold it."""
    facts: dict[str, Any] = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name)) is not None},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "device": device(),
        "threads": threads(),
    }
    return facts | ({"commit": commit} if (commit := _commit()) else {})


def encoded(sessions: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the content of the file for a run's sessions."""
    return json.dumps({"sessions": [dict(each) for each in sessions]}, indent=1).encode()


def write(folder: Path, facts: Mapping[str, Any]) -> None:
    """Adds a session to the file of a run; one that cannot be read is begun anew.

    Raises:
        RecordsError: If it cannot be written.
    """
    path = folder / FILE
    try:
        files.write(path, encoded([*sessions(folder), facts]))
    except OSError as error:
        raise RecordsError(f"{path}: cannot be written: {error.strerror}") from error


def sessions(folder: Path) -> list[dict[str, Any]]:
    """Returns what is told of a run's sessions; nothing if the file cannot be read."""
    try:
        found = json.loads(files.read_text(folder / FILE))["sessions"]
        return [dict(each) for each in found]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def markdown(facts: Mapping[str, Any]) -> str:
    """Returns the facts as a table for TensorBoard's text tab."""
    flat = {key: value for key, value in facts.items() if key != "versions"} | facts.get("versions", {})
    rows = [f"| {key} | {' '.join(v) if isinstance(v, list) else v} |" for key, v in flat.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str:
    """The commit of the checkout that this package lies in, with a "+" if files differ; "" outside of one."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    quiet: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 5, "check": True}
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], **quiet, env=environment)
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno"], **quiet, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
