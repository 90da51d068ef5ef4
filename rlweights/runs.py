"""Run folders: runs/<agent>/<seed>-<time>."""

import shutil
from datetime import datetime
from pathlib import Path

from rlweights.assembly import Assembly
from rlweights.config import ConfigError


def create(assembly: Assembly, runs: Path, name: str) -> Path:
    """Creates a run folder with the resolved agent file, and the user's own files that it names.

    Raises:
        ConfigError: If the folder cannot be written; nothing is left behind.
    """
    stem = f"{assembly.agent.seed}-{datetime.now():%Y%m%d-%H%M%S}"
    folder, number = runs / name / stem, 1
    while folder.exists():
        number += 1
        folder = runs / name / f"{stem}-{number}"
    try:
        folder.mkdir(parents=True, exist_ok=False)
        (folder / "agent.toml").write_text(assembly.agent.to_toml(), encoding="utf-8")
        for file in assembly.loaded_files:
            shutil.copy(file, folder / file.name)
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"{folder}: the run folder cannot be written: {error.strerror}") from None
    return folder
