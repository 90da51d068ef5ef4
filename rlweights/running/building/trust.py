"""Doors: the code that an agent file names is said before it is run, and a stranger's is refused.

An agent file, or a run folder that somebody shares, is data until it names code: a Python file, or a module.
All commands open such a door here and nowhere else.
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

from rlweights.running import files
from rlweights.running.config.agent_file import AGENT, PACKAGE
from rlweights.running.config.messages import refusal

TRUST = "RLWEIGHTS_TRUST"
"""The variable that opens all doors, as `--trust` does; processes that a command starts inherit it."""

_said: set[str] = set()
"""What this process has said already."""

_known: set[str] = set()
"""Checksums of the files that this process has run."""


def trust(given: bool) -> None:
    """Opens all doors of this process if `--trust` was given."""
    if given:
        os.environ[TRUST] = "1"


def open_file(source: str, key: str, reference: str, file: Path) -> None:
    """Says that a Python file is going to be run, and remembers it as one that the user has run.

    It is run where it is installed, lies in the current folder (but not in a run folder there, which may be
    somebody else's), or has the content of a file that was run before, as the copies in one's own runs have.

    Args:
        source: The agent file.
        key: Its key.
        reference: The value of the key.
        file: The file, resolved.

    Raises:
        ConfigError: If it is none of these, and not trusted; nothing of it was run.
    """
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    own = _is_own(file) and not (file.parent / AGENT).is_file()
    if not (own or _is_installed(file) or _is_trusted() or content in _known or content in _remembered()):
        raise _refused(source, key, reference, f"would run {file}")
    _say(f"code         {file} is run: {source} names it as {key}")
    _remember(content)


def open_module(source: str, key: str, module: str) -> None:
    """Says that a module is going to be imported, and from where.

    It is one that Python finds for the user anyway: the agent file adds no place, see `open_folder`.
    """
    name = module.partition(".")[0]
    if module in sys.modules:
        return
    found = None
    with contextlib.suppress(ImportError, ValueError):  # who imports it says what is wrong
        found = importlib.util.find_spec(name)
    if found is not None:
        places = [found.origin] if found.origin else list(found.submodule_search_locations or [])
        _say(
            f"code         module {module} is imported, from {', '.join(places)}: {source} names it as {key}"
        )


def open_folder(source: str, folder: str) -> None:
    """Makes a folder one that modules are imported from, after all others: nothing installed is hidden by it.

    Raises:
        ConfigError: If it lies outside of the current folder, is not installed, and is not trusted.
    """
    if folder in sys.path or not Path(folder).is_dir():
        return
    place = Path(folder).resolve()
    if not (_is_own(place) or _is_installed(place) or _is_trusted()):
        raise _refused(source, "environment.folder", folder, "would import modules from there")
    sys.path.append(folder)


def _refused(source: str, key: str, value: str, what: str) -> Exception:
    why = f"{what}, which is neither installed nor yours: not in the current folder, and never run before"
    hint = f" Read it first; --trust (or {TRUST}=1) opens it"
    return refusal(source, key, value, why, hint=hint)


def _is_trusted() -> bool:
    return os.environ.get(TRUST, "") not in ("", "0")


def _is_own(place: Path) -> bool:
    return place.is_relative_to(Path.cwd().resolve())


def _is_installed(place: Path) -> bool:
    paths = sysconfig.get_paths()
    installed = [PACKAGE.parent, *(Path(paths[name]) for name in ("purelib", "platlib", "stdlib"))]
    return any(place.is_relative_to(each.resolve()) for each in installed)


def _say(line: str) -> None:
    if line in _said or sys.stderr is None:
        return
    _said.add(line)
    with contextlib.suppress(OSError, ValueError):  # a console that has gone away
        print(line, file=sys.stderr, flush=True)


def _ledger() -> Path | None:
    """Checksums of the Python files that the user has run, one a line; None without a home."""
    with contextlib.suppress(RuntimeError):
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(state) / "rlweights" / "trusted"
    return None


def _remembered() -> set[str]:
    path = _ledger()
    with contextlib.suppress(OSError, ValueError):
        return set(path.read_text(encoding="utf-8").split()) if path is not None else set()
    return set()


def _remember(content: str) -> None:
    _known.add(content)
    path, known = _ledger(), _remembered()
    if path is None or content in known:
        return
    with contextlib.suppress(OSError):  # a home that cannot be written: asked again in the next process
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, "".join(f"{each}\n" for each in sorted(known | {content})).encode())
