"""Single environments of one agent: what `environment.id` names, with its arguments, in its wrappers."""

import contextlib
import copy
import functools
import importlib
import inspect
import re
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator

from rlweights.errors import ConfigError
from rlweights.learning.environments.base import Environment
from rlweights.learning.environments.replay import FAILURES, described
from rlweights.running.building import trust
from rlweights.running.building.user_code import UserCode, arguments_of, home_of, takes, with_tuples
from rlweights.running.config import extras, objects
from rlweights.running.config.messages import choices, first_line, nearest, refusal
from rlweights.running.config.schema import EnvironmentSection, Wrapper


class Singles:
    """Makes single environments.

    Args:
        section: What the agent file says of its environment.
        files: Loads the user's classes.
        kwargs: Arguments beside those of the section, and before them.
        key: The table of these, for errors.
        phase: For wrappers that take a `phase`: tasks may change by phases.
    """

    def __init__(
        self,
        section: EnvironmentSection,
        files: UserCode,
        kwargs: Mapping[str, Any] | None = None,
        key: str = "environment",
        phase: int | None = None,
    ):
        self._phase = phase
        self._section = section
        self._files = files
        self._source = files.source
        self._own, self._key = dict(kwargs or {}), key

    @property
    def registered(self) -> str | None:
        """The id by which Gymnasium knows the environment; None if a class or a function makes it."""
        name = self._section.id.rpartition(":")[2]
        return name if name in gym.registry and not objects.is_reference(self._section.id) else None

    @property
    def spec(self) -> EnvSpec | None:
        """What Gymnasium knows of the environment."""
        return None if self.registered is None else gym.registry[self.registered]

    @property
    def name(self) -> str:
        """What messages call it."""
        text = self._section.id
        return objects.name_of(text) if objects.is_reference(text) else text.rpartition(":")[2]

    @property
    def home(self) -> str | None:
        """The folder that must be importable for it, in another process too; None if nothing is needed."""
        sections = [Wrapper(name=each) if isinstance(each, str) else each for each in self._section.wrappers]
        for text in (self._section.id, *(each.name for each in sections)):
            module = text.rpartition(":")[0]
            if objects.is_reference(text) or not module:
                continue
            if module.endswith(".py"):
                return str((self._files.folder / module).resolve().parent)
            if (folder := home_of(module)) is not None:
                return folder
        return self._section.folder

    def check(self) -> None:
        """Finds the environment.

        Raises:
            ConfigError: If there is none; or its id has no version, and Gymnasium would have to guess.
        """
        _ = self.creator

    @functools.cached_property
    def creator(self) -> Any:
        """What makes the environment: the registered id, or a class, a function or an instance."""
        whole = self._section.id
        module, _, name = whole.rpartition(":")
        if objects.is_reference(whole):
            return self._object(whole)
        if module.endswith(".py"):
            self._files.run("environment.id", whole)
            found = (
                name if name in gym.registry else self._files.load("environment.id", whole, functions=True)
            )
            return self._usable(found)
        package = extras.bringing(name)
        if package is not None:
            self._installed("environment.id", whole, package.module)
        owner = None
        if module:
            trust.open_module(self._source, "environment.id", module)
            owner = self.guarded(lambda: importlib.import_module(module))
        if name in gym.registry:
            return name
        found = getattr(owner, name, None)
        if callable(found):
            return self._usable(found)
        why, hint = "Gymnasium knows no such environment", nearest(name, gym.registry)
        namespace = name.rpartition("/")[0]
        if owner is not None:
            known = [n for n, v in vars(owner).items() if inspect.isclass(v) and issubclass(v, gym.Env)]
            why = f"{module} registers no such environment, and has no such class"
            hint = nearest(name, [*known, *gym.registry])
        elif namespace and not any(known.startswith(f"{namespace}/") for known in gym.registry):
            why = f"no installed package brings environments of {namespace!r}"
        if not module and not hint:
            hint = f" Where a module of your own registers it, name that, too: module:{name or 'Id-v0'}"
        raise refusal(self._source, "environment.id", whole, why, hint=hint)

    def make(self, render_mode: str | None = None) -> gym.Env:
        """Makes an environment in its wrappers; whatever it raises is raised."""
        creator, arguments = self.creator, self.arguments()
        mode = render_mode or self._section.render_mode
        if isinstance(creator, str):
            env = gym.make(
                self._section.id if ".py:" not in self._section.id else creator,
                **({"render_mode": mode} if mode else {}),
                **arguments,
            )
        elif isinstance(creator, gym.Env):
            if mode is not None and creator.render_mode != mode:
                raise TypeError(
                    f"this instance was made with render_mode={creator.render_mode!r}, not {mode!r}"
                )
            env = _Kept(creator)
        else:
            if mode is not None:
                if not takes(creator, "render_mode"):
                    raise TypeError(f"{self.name} takes no render_mode")
                arguments["render_mode"] = mode
            env = creator(**arguments)
        if not isinstance(env, gym.Env):
            raise TypeError(f"{self.name} made a {type(env).__name__}, and no gymnasium.Env")
        for space in ("observation_space", "action_space"):
            if not hasattr(env, space):
                raise TypeError(f"{self.name} has no {space}")
        if not isinstance(creator, gym.Env):
            separate_spaces(env)
        for wrap in self._wrappers:
            env = wrap(env)
        return env

    def arguments(self) -> dict[str, Any]:
        """Returns the arguments of the environment itself: tuples and objects are what they were.

        Raises:
            ConfigError: If one is an object that another process was given.
        """
        found = {}
        for key, value in (self._section.kwargs | self._own).items():
            try:
                found[key] = objects.decoded(value)
            except LookupError as error:
                where = f"{self._key if key in self._own else 'environment'}.kwargs.{key}"
                raise refusal(self._source, where, value, first_line(error)) from None
        owner = self._owner()
        return found if owner is None else with_tuples(owner, found)

    def guarded(self, make: Callable[[], Any], creator: Any = None, aside: str = "") -> Any:
        """Calls `make`; whatever an environment raises in it becomes an error of one line.

        Args:
            make: What to call.
            creator: What takes the arguments, where it is not the environment's own.
            aside: Said with errors that are the environment's own.
        """
        section, given = self._section, self._section.kwargs | self._own
        try:
            return make()
        except ConfigError:
            raise
        except FAILURES as error:
            text = re.split(r" was raised from|\. Did you mean", first_line(error))[0]
            found = re.search(r"unexpected keyword argument '(\w+)'", text)
            if found and found[1] in given:
                made_by = creator or self._owner()
                known = [name for name in arguments_of(made_by) if name != "render_mode"] if made_by else []
                hint = choices(found[1], known)
                table = self._key if found[1] in self._own else "environment"
                key, why = f"{table}.kwargs.{found[1]}", f"is no argument of {section.id}"
                raise refusal(self._source, key, given[found[1]], why, hint=hint) from error
            if isinstance(error, gym.error.Error | ImportError):
                raise refusal(
                    self._source, "environment.id", section.id, extras.explained(text) + aside
                ) from error
            pattern = r" was raised from the environment creator for .*? with kwargs \(.*?\)"
            why = re.sub(pattern, "", described(error))
            if missed := re.fullmatch(r"TypeError: \S+ missing \d+ required [\w-]+ arguments?: (.*)", why):
                keys = [f"environment.kwargs.{name}" for name in re.findall(r"'(\w+)'", missed[1])]
                why += f": {', '.join(keys)}"
            why += aside
            if given:
                key = "evaluation.kwargs" if self._own else "environment.kwargs"
                raise refusal(self._source, key, given, why) from error
            raise refusal(self._source, "environment.id", section.id, why) from error

    def _object(self, whole: str) -> Any:
        try:
            return objects.find(whole)
        except LookupError as error:
            raise refusal(self._source, "environment.id", whole, first_line(error)) from None

    def _usable(self, found: Any) -> Any:
        if inspect.isclass(found) and issubclass(found, Environment):
            why = "is a TensorFlow environment: environment.backend = 'tensorflow'"
            raise refusal(self._source, "environment.id", self._section.id, why)
        if inspect.isclass(found) and not issubclass(found, gym.Env):
            raise refusal(self._source, "environment.id", self._section.id, "is no gymnasium.Env")
        return found

    def _owner(self) -> Any:
        """What takes the arguments of the environment; None if it is not known."""
        creator = self.creator
        if isinstance(creator, gym.Env):
            return type(creator)
        if not isinstance(creator, str):
            return creator
        entry = gym.spec(creator).entry_point
        return load_env_creator(entry) if isinstance(entry, str) else entry

    # Wrappers -------------------------------------------------------------------------------------

    def _installed(self, key: str, value: str, module: str) -> Any:
        """Imports a module that the agent file's `key` needs."""
        try:
            return extras.load(module)
        except extras.NotInstalled as error:
            raise refusal(self._source, key, value, first_line(error)) from None

    @property
    def takes_phase(self) -> bool:
        """Whether a wrapper takes the phase that its task is to have."""
        return any(
            "phase" in arguments_of(self._wrapper_class(f"environment.wrappers.{i}", name))
            for i, name in enumerate(_named(each) for each in self._section.wrappers)
        )

    @functools.cached_property
    def _wrappers(self) -> list[Callable[[gym.Env], gym.Env]]:
        """Returns functions that wrap an environment, innermost first."""
        return [
            self._wrapper(f"environment.wrappers.{i}", Wrapper(name=each) if isinstance(each, str) else each)
            for i, each in enumerate(self._section.wrappers)
        ]

    def _wrapper(self, key: str, section: Wrapper) -> Callable[[gym.Env], gym.Env]:
        """Returns a function that wraps: by a wrapper of Gymnasium, of a package, or of the user."""
        wrapper = self._wrapper_class(key, section.name)
        arguments = with_tuples(wrapper, objects.decoded(section.model_dump(exclude={"name"})))
        if self._phase is not None and "phase" in arguments_of(wrapper):
            arguments["phase"] = self._phase

        def wrap(env: gym.Env) -> gym.Env:
            try:
                return wrapper(env, **arguments)
            except Exception as error:
                raise self._wrapper_error(key, section.name, wrapper, arguments, error) from error

        return wrap

    def _wrapper_class(self, key: str, name: str) -> Any:
        if ".py:" in name:
            return self._files.load(key, name)
        module, _, attribute = name.rpartition(":")
        if module:
            trust.open_module(self._source, key, module)
        owner = self._installed(key, name, module) if module else gym.wrappers
        wrapper = getattr(owner, attribute, None)
        if not (inspect.isclass(wrapper) and issubclass(wrapper, gym.Wrapper)):
            known = [n for n, v in vars(owner).items() if inspect.isclass(v) and issubclass(v, gym.Wrapper)]
            why = f"{module or 'Gymnasium'} has no such wrapper"
            raise refusal(self._source, key, name, why, hint=nearest(attribute, known))
        return wrapper

    def _wrapper_error(
        self, key: str, name: str, wrapper: Any, arguments: Any, error: Exception
    ) -> ConfigError:
        """The error of a wrapper that failed; it names an argument that the wrapper does not take."""
        known = arguments_of(wrapper)[1:]  # the first is the environment
        unknown = next((each for each in arguments if each not in known), None)
        if isinstance(error, TypeError) and unknown is not None:
            where, why = f"{key}.{unknown}", f"is no argument of {name}"
            return refusal(self._source, where, arguments[unknown], why, hint=choices(unknown, known))
        return refusal(self._source, key, name, self._files.place(error))


_TAKEN: weakref.WeakValueDictionary[int, gym.Space] = weakref.WeakValueDictionary()
"""Spaces of the environments that were made in this process, by their identity."""


def separate_spaces(env: gym.Env) -> None:
    """Gives an environment spaces of its own where another one has the same objects.

    Spaces hold generators. Where they are attributes of a class, what one environment samples would depend
    on what the others have sampled, and no episode would follow from its seed and its actions.
    """
    inner = env.unwrapped
    for name in ("observation_space", "action_space"):
        space = getattr(inner, name, None)
        if not isinstance(space, gym.Space):
            continue
        if _TAKEN.get(id(space)) is space:
            space = copy.deepcopy(space)
            with contextlib.suppress(AttributeError):  # a property without a setter makes its own each time
                setattr(inner, name, space)
        _TAKEN[id(space)] = space


def _named(wrapper: str | Wrapper) -> str:
    return wrapper if isinstance(wrapper, str) else wrapper.name


class _Kept(gym.Wrapper):
    """The user's own instance: it stays open, to be acted in again."""

    def close(self) -> None:
        """Leaves it open."""
