"""The user's code, `file.py:Name`: nothing else lets an agent file bring code in."""

import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlweights.running.building import trust
from rlweights.running.config.messages import first_line, nearest, refusal


class UserCode:
    """Loads the classes that an agent file names, each file once.

    Args:
        source: The agent file, for errors.
        folder: Folder that relative paths begin at.
        also: Another folder whose modules can be imported, beside the current one.
    """

    def __init__(self, source: str, folder: Path, also: str | None = None):
        self.source = source
        self.folder = folder
        self._modules: dict[Path, Any] = {}
        here = os.getcwd()
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)  # last: nothing that is installed is hidden by it
        if also:
            trust.open_folder(source, also)

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
        location = self._location(key, reference, file)
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

    def run(self, key: str, reference: str) -> None:
        """Runs the file of `file.py:Name`, which may register environments.

        Raises:
            ConfigError: If there is no such file, or it fails.
        """
        self._module(key, reference, self._location(key, reference, reference.rpartition(":")[0]))

    def _location(self, key: str, reference: str, file: str) -> Path:
        try:
            location = (self.folder / file).resolve()
            found = location.is_file()
        except (OSError, ValueError) as error:
            raise refusal(self.source, key, reference, first_line(error)) from None
        if not found:
            raise refusal(self.source, key, reference, f"there is no file {location}")
        return location

    def _module(self, key: str, reference: str, location: Path) -> Any:
        if location not in self._modules:
            try:
                trust.open_file(self.source, key, reference, location)
            except OSError as error:
                raise refusal(self.source, key, reference, first_line(error)) from None
            name = f"rlweights_user_{location.stem}"
            spec = importlib.util.spec_from_file_location(name, location)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            if str(location.parent) not in sys.path:
                sys.path.append(str(location.parent))  # for what the file imports from beside it
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
    return list(_parameters_of(owner))


def takes(owner: Any, name: str) -> bool:
    """Whether a function or a class takes an argument of this name, be it among any others."""
    init = owner.__init__ if inspect.isclass(owner) else owner
    try:
        parameters = inspect.signature(init).parameters.values()
    except (TypeError, ValueError):
        return True
    return name in arguments_of(owner) or any(p.kind is p.VAR_KEYWORD for p in parameters)


def with_tuples(owner: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments with tuples for arrays, where the owner's default or annotation wants a tuple.

    TOML has arrays only, and many constructors refuse lists.
    """
    try:
        known = _parameters_of(owner)
    except (TypeError, ValueError):  # no signature to be read
        return dict(arguments)
    return {
        key: _tupled(value, known[key]) if key in known and isinstance(value, list) else value
        for key, value in arguments.items()
    }


def _tupled(value: list[Any], parameter: inspect.Parameter) -> Any:
    annotation, default = parameter.annotation, parameter.default
    text = annotation if isinstance(annotation, str) else str(annotation)
    count = len(re.findall(r"\btuple\b", text, re.IGNORECASE))
    lists = re.search(r"\b(list|Sequence)\b", text, re.IGNORECASE)
    if not isinstance(default, tuple) and (not count or lists):
        return value
    deep = count > 1 or (isinstance(default, tuple) and any(isinstance(each, tuple) for each in default))
    return tuple(tuple(each) if deep and isinstance(each, list) else each for each in value)


def _parameters_of(owner: Any) -> dict[str, inspect.Parameter]:
    if not inspect.isclass(owner):
        return _named(owner)
    known: dict[str, inspect.Parameter] = {}
    for cls in owner.__mro__:
        init = vars(cls).get("__init__")
        if init is None or cls is object:
            continue
        known |= {name: each for name, each in _named(init).items() if name not in known}
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(init).parameters.values()):
            break
    known.pop("self", None)
    return known


def _named(function: Any) -> dict[str, inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name: p for p in inspect.signature(function).parameters.values() if p.kind in kinds}


def home_of(module: str) -> str | None:
    """Returns the folder from which a module was imported; None if it is an installed one."""
    found = sys.modules.get(module.partition(".")[0])
    file = getattr(found, "__file__", None)
    if file is None:
        return None
    folder = Path(file).resolve().parent
    folder = folder.parent if Path(file).name == "__init__.py" else folder
    installed = re.search(r"site-packages|dist-packages|[/\\]lib[/\\]python3", str(folder))
    return None if installed else str(folder)
