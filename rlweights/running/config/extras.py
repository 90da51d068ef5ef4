"""Packages that register environments with Gymnasium: the module to import, and the extra to install."""

import importlib
import re
from typing import Any, NamedTuple

from rlweights.running.config.messages import missing


class Package(NamedTuple):
    """A package whose import registers environments."""

    module: str
    extra: str  # of rlweights
    prefixes: tuple[str, ...]  # with which the ids begin


PACKAGES = (
    Package("ale_py", "atari", ("ALE/",)),
    Package("minigrid", "minigrid", ("MiniGrid-", "BabyAI-")),
)
"""Gymnasium knows the ids of its own extras (Box2D, MuJoCo) without them, but not those of these packages."""


class NotInstalled(ImportError):
    """A package is missing; the message says how to install it."""


def bringing(env: str) -> Package | None:
    """Returns the package that brings an environment, by its id; None if none of PACKAGES does."""
    return next((each for each in PACKAGES if env.startswith(each.prefixes)), None)


def explained(text: str) -> str:
    """Returns Gymnasium's message about a missing package, with the extra of rlweights that brings it."""
    found = re.search(r"(\w+) is not installed.*gymnasium\[([\w-]+)\]", text)
    if found is None:
        return text
    extra = found[2].replace("_", "-")
    return missing(found[1], "classic-control" if found[1] == "pygame" else extra)


def load(module: str) -> Any:
    """Imports a module.

    Raises:
        NotInstalled: If it is not installed; the message names the extra, where there is one.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = (error.name or module).partition(".")[0]
        extra = next((each.extra for each in PACKAGES if each.module == module.partition(".")[0]), None)
        raise NotInstalled(missing(top, extra) if extra else f"{top} is not installed") from error
