"""The user's code, `file.py:Name`: nothing else lets an agent file bring code in."""

import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from rlweights.running.config.messages import first_line, nearest, refusal


class UserCode:
    """Loads the classes that an agent file names, each file once.

    Args:
        source: The agent file, for errors.
        folder: Folder that relative paths begin at.
    """

    def __init__(self, source: str, folder: Path):
        self.source = source
        self.folder = folder
        self._modules: dict[Path, Any] = {}

    @property
    def loaded(self) -> list[Path]:
        """The files that were loaded, in order."""
        return list(self._modules)

    def load(self, key: str, reference: str, *, functions: bool = False) -> Any:
        """Returns the class that `file.py:Name` refers to.

        Args:
            key: The key of the agent file, for errors.
            reference: Its value, `file.py:Name`; the file is relative to `folder`.
            functions: Whether a function is accepted as well.

        Raises:
            ConfigError: If there is no such file or class, or the file fails.
        """
        file, _, name = reference.rpartition(":")
        try:
            location = (self.folder / file).resolve()
            found = location.is_file()
        except (OSError, ValueError) as error:
            raise refusal(self.source, key, reference, first_line(error)) from None
        if not found:
            raise refusal(self.source, key, reference, f"there is no file {location}")
        module = self._module(key, reference, location)
        kind = "class or function" if functions else "class"
        own = [
            n
            for n, v in vars(module).items()
            if (inspect.isclass(v) or (functions and inspect.isfunction(v)))
            and v.__module__ == module.__name__
        ]
        if name not in own:
            hint = f"{nearest(name, own)} It has: {', '.join(own) or f'no {kind}'}"
            raise refusal(self.source, key, reference, f"{location.name} has no {kind} {name!r}", hint=hint)
        return getattr(module, name)

    def _module(self, key: str, reference: str, location: Path) -> Any:
        if location not in self._modules:
            name = f"rlweights_user_{location.stem}"
            spec = importlib.util.spec_from_file_location(name, location)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except (Exception, SystemExit) as error:  # whatever the file raises is one line about that file
                raise refusal(self.source, key, reference, _failure(error, location)) from error
            self._modules[location] = module
        return self._modules[location]

    def place(self, error: BaseException) -> str:
        """Returns an error in one line, with the line of the user's file if it came from there."""
        frames = traceback.extract_tb(error.__traceback__)
        files = {str(each) for each in self._modules}
        found = next((frame for frame in reversed(frames) if frame.filename in files), None)
        return _failure(error, Path(found.filename)) if found else first_line(error)


def _failure(error: BaseException, file: Path) -> str:
    """The place of an error in a file, its type and its message."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    if isinstance(error, SyntaxError) and error.lineno is not None:
        lines.append(error.lineno)
    place = f"{file.name}, line {lines[-1]}" if lines else file.name
    return f"{place}: {type(error).__name__}: {first_line(error)}"


def arguments_of(owner: Any) -> list[str]:
    """Returns the named arguments of a function, or of a class and of the bases that it passes them on to."""
    if not inspect.isclass(owner):
        return _named(owner)
    known: list[str] = []
    for cls in owner.__mro__:
        init = vars(cls).get("__init__")
        if init is None or cls is object:
            continue
        known += _named(init)
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            break
    return [name for name in dict.fromkeys(known) if name != "self"]


def _named(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
