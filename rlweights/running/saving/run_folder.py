"""Run folders: runs/<agent>/<seed>-<time>."""

import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlweights.errors import ConfigError
from rlweights.running import files
from rlweights.running.config import agent_file
from rlweights.running.config.agent_file import AGENT
from rlweights.running.config.messages import nearest
from rlweights.running.config.schema import Agent

CHANGEABLE = (
    *("budget.", "evaluation.", "logging.", "checkpoint.keep", "expect", "description", "guard."),
    *("environment.folder", "environment.timeout", "environment.on_error", "environment.max_recreations"),
)
"""Keys that may change when a run is resumed: they change how long it trains and what it records."""


PRETRAINED = agent_file.PACKAGE / "_pretrained"
if not PRETRAINED.is_dir():  # a checkout, where they lie beside the package
    PRETRAINED = agent_file.PACKAGE.parent / "pretrained"


def create(
    runs: Path,
    name: str,
    agent: Agent,
    source: str,
    code: Sequence[Path],
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """Creates a run folder with the resolved agent file, and the user's own files that it names.

    The agent file is written last and atomically: a folder that holds one is complete.

    Args:
        runs: Folder of all runs.
        name: Names the folder of the agent's runs.
        agent: The configuration.
        source: The file or option that it came from, for errors.
        code: The user's files.
        beside: Contents of further files, by name.

    Raises:
        ConfigError: If the folder cannot be written, or two of the files have one name; no folder stays
            behind.
    """
    copies = _copies(code, source)
    stem = f"{agent.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / name / stem, 1
    try:
        while True:
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if not folder.is_dir():
                    raise
                number += 1
                folder = runs / name / f"{stem}-{number}"
        _fill(folder, agent, copies, beside)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"{folder}: the run folder cannot be written: {error.strerror}") from None
    return folder


def create_at(
    folder: Path,
    agent: Agent,
    source: str,
    code: Sequence[Path],
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Makes a chosen folder a run folder; it may exist, and hold what a killed `create_at` has left.

    Args:
        folder: The folder.
        agent: See `create`.
        source: See `create`.
        code: See `create`.
        beside: See `create`.

    Raises:
        ConfigError: If the folder holds anything else, or cannot be written; see also `create`.
    """
    copies = _copies(code, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder, re.escape(AGENT))
        others = sorted({each.name for each in folder.iterdir()} - {*copies, *beside})
        if others:
            raise ConfigError(f"{folder}: no run folder, and not empty: it holds {others[0]}")
        _fill(folder, agent, copies, beside)
    except OSError as error:
        raise ConfigError(f"{folder}: the run folder cannot be written: {error.strerror}") from None


def _copies(code: Sequence[Path], source: str) -> dict[str, Path]:
    """The user's own files by their names, which must differ."""
    copies = {file.name: file for file in code}
    for file in code:
        if copies[file.name] != file:
            raise ConfigError(
                f"{source}: {file} and {copies[file.name]} cannot both be kept in the run folder; "
                f"rename one of them"
            )
    return copies


def _fill(folder: Path, agent: Agent, copies: Mapping[str, Path], beside: Mapping[str, bytes]) -> None:
    for file in copies.values():
        shutil.copy(file, folder)
    for name, content in beside.items():
        files.write(folder / name, content)
    written = with_copies(agent) if copies else agent
    files.write(folder / AGENT, written.to_toml().encode())


def is_run(folder: Path) -> bool:
    """Whether a folder is a run folder.

    Raises:
        ConfigError: If the system does not say.
    """
    try:
        return (folder / AGENT).is_file()
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None


def pretrained() -> dict[str, Path]:
    """Returns the run folders that come with the package, by the names of their agents."""
    return {path.parent.name: path.parent for path in sorted(PRETRAINED.glob(f"*/{AGENT}"))}


def find(run: str | Path) -> Path:
    """Returns a run folder that is meant: the folder of that name, or the pretrained agent.

    What there is in the file system comes first; what is neither is returned as it is, for others to refuse.
    """
    folder = Path(run)
    return folder if folder.exists() else pretrained().get(str(run), folder)


def read(folder: Path) -> Agent:
    """Returns the agent of a run.

    Raises:
        ConfigError: If the folder is no run, or its agent file is not valid.
    """
    if not is_run(folder):
        hint = "" if folder.exists() or len(folder.parts) > 1 else nearest(str(folder), pretrained())
        hint = f". Pretrained agents: {', '.join(pretrained())}.{hint}" if hint else ""
        raise ConfigError(f"{folder}: no run folder, it holds no {AGENT}{hint}")
    return agent_file.load(folder / AGENT)


def add(folder: Path, name: str, content: bytes) -> None:
    """Writes a file beside the agent file, in one act.

    Raises:
        ConfigError: If it cannot be written; an old one is intact.
    """
    try:
        files.write(folder / name, content)
    except OSError as error:
        raise ConfigError(f"{folder / name}: cannot be written: {error.strerror}") from None


def update(folder: Path, agent: Agent) -> None:
    """Replaces the agent file of a run folder by `agent`, atomically.

    Raises:
        ConfigError: If it cannot be written; the old file is intact.
    """
    if read(folder) == agent:
        return
    try:
        files.write(folder / AGENT, agent.to_toml().encode())
    except OSError as error:
        raise ConfigError(f"{folder / AGENT}: cannot be written: {error.strerror}") from None


def refuse_changes(before: Agent, after: Agent, where: str) -> None:
    """Makes sure that a resumed run trains the same agent as before.

    Args:
        before: The agent of the run.
        after: The agent to resume it with.
        where: The file or folder, for errors.

    Raises:
        ConfigError: If a key differs that is not CHANGEABLE; the message names all of them.
    """
    old, new = (_flat(agent.model_dump(by_alias=True)) for agent in (before, after))
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    refused = [key for key in changed if not key.startswith(CHANGEABLE)]
    if refused:
        raise ConfigError(
            f"{where}: a resumed run keeps what it trains; these keys differ: {', '.join(refused)}. "
            f"Start a new run to change them"
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """The leaves of nested tables and arrays of tables, by keys with dots."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        value = {str(i): each for i, each in enumerate(value)}
    if not isinstance(value, dict):
        return {key: value}
    prefix = f"{key}." if key else ""
    return {k: v for name, part in value.items() for k, v in _flat(part, prefix + name).items()}


def with_copies(agent: Agent) -> Agent:
    """Returns the agent with `some/where/file.py:Name` as `file.py:Name`: the copy in the run folder."""

    def local(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: local(v) for k, v in value.items()}
        if isinstance(value, list):
            return [local(v) for v in value]
        found = re.fullmatch(r"(.+\.py):(\w+)", value) if isinstance(value, str) else None
        return f"{Path(found[1]).name}:{found[2]}" if found else value

    data = agent.model_dump(by_alias=True, exclude_none=True)
    data["environment"] |= {key: local(data["environment"][key]) for key in ("id", "wrappers")}
    data["network"] = local(data["network"])
    data["interventions"] = [each | {"rule": local(each["rule"])} for each in data["interventions"]]
    return agent_file.parse(data, "the run's agent")
