"""The environments of one agent: for training, for evaluation, and for rendering."""

import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode

from rlweights.errors import ConfigError
from rlweights.learning import environments
from rlweights.learning.continuation import Continuation, ReadState, ReplayedEpisodes, ReplayedVector
from rlweights.learning.distributions import Distribution
from rlweights.learning.environments.envpool import Reseeded
from rlweights.learning.environments.replay import SeededEpisodes
from rlweights.learning.environments.vector import VectorAdapter
from rlweights.learning.stepper import Stepper
from rlweights.running.building.user_code import UserCode, arguments_of
from rlweights.running.config import extras
from rlweights.running.config.messages import choices, first_line, missing, nearest, refusal
from rlweights.running.config.schema import Agent, Wrapper
from rlweights.running.interrupts import shielded


class EnvironmentFactory:
    """Makes the environments of one agent.

    Args:
        agent: The configuration.
        files: Loads the user's classes.

    Attributes:
        tensorflow: The environment as a TensorFlow function, if the agent trains in one; else None.

    Raises:
        ConfigError: If there is no such environment, or it does not take its arguments.
    """

    def __init__(self, agent: Agent, files: UserCode):
        self._section = agent.environment
        self._seed = agent.seed
        self._longest = agent.evaluation.max_episode_steps
        self._phase = agent.evaluation.phase
        self._files = files
        self._source = files.source
        self.tensorflow: environments.Environment | None = None
        if self._section.backend == "tensorflow":
            self.tensorflow = self._tensorflow()
        if self._phase is not None:
            self._check_phase()

    def spaces(self) -> tuple[gym.Space, gym.Space]:
        """Returns the spaces of one environment's observations and actions.

        Raises:
            ConfigError: If agents would train in other spaces than they are evaluated in.
        """
        twin = self.tensorflow
        if twin is not None:
            return self._made(lambda: (twin.observation_space, twin.action_space))
        found = self._spaces_of(self.vector(1))
        section = self._section
        mode = self._mode() if section.backend == "gymnasium" else section.backend
        if mode not in ("sync", "async"):  # other code than what agents are evaluated in
            real = self._spaces_of(self.vector(1, evaluation=True))
            for ours, theirs in zip(found, real, strict=True):
                if _form(ours) != _form(theirs):
                    key = "backend" if mode == section.backend else "vectorization_mode"
                    why = f"has {ours}, where agents are evaluated in {theirs}"
                    raise refusal(self._source, f"environment.{key}", mode, why)
        return found

    def _spaces_of(self, envs: gym.vector.VectorEnv) -> tuple[gym.Space, gym.Space]:
        try:
            return envs.single_observation_space, envs.single_action_space
        finally:
            envs.close()

    def vector(self, num_envs: int, *, evaluation: bool = False) -> gym.vector.VectorEnv:
        """Makes vector environments: for rollouts, or for evaluation in Gymnasium's environment.

        Raises:
            ConfigError: If there is no such environment, or it does not take its arguments.
        """
        section = self._section
        if section.backend == "envpool" and not evaluation:
            return self._envpool(num_envs)
        if self.tensorflow is not None and not self._has_twin():
            told = evaluation and self._phase is not None
            return VectorAdapter(self._tensorflow(self._phase) if told else self.tensorflow, num_envs)
        self._check_id()
        mode = "sync" if evaluation else self._mode()
        if mode != "vector_entry_point":
            return self._made(lambda: self._singles(num_envs, mode, evaluation))
        return self._made(
            lambda: gym.make_vec(section.id, num_envs, vectorization_mode=mode, **section.kwargs)
        )

    def continued(self, num_envs: int, distribution: Distribution) -> Continuation:
        """Makes vector environments for rollouts, with what makes them go on where they were.

        Args:
            num_envs: Number of environments N.
            distribution: Of the actions, with which it is tried whether a state can be read and written.
        """
        section = self._section
        stepper = Stepper(self.vector(num_envs))
        mode = self._mode() if section.backend == "gymnasium" else section.backend
        if mode in ("sync", "async"):
            return ReplayedEpisodes(stepper)
        rng = np.random.default_rng(0)
        parameters = np.zeros((num_envs, distribution.parameter_size), np.float32)
        if mode == "vector_entry_point" and ReadState.holds(
            stepper, lambda: distribution.choose_numpy(parameters, rng)
        ):
            return ReadState(stepper)
        return ReplayedVector(stepper)

    def _singles(self, num_envs: int, mode: str, evaluation: bool) -> gym.vector.VectorEnv:
        """Makes single environments, stepped one after the other or in a process each."""
        section, wrappers = self._section, self._wrappers(self._phase if evaluation else None)

        def single(index: int) -> gym.Env:
            env = gym.make(section.id, **section.kwargs)
            for wrap in wrappers:
                env = wrap(env)
            return self._limited(env) if evaluation else SeededEpisodes(env, index)

        made = [functools.partial(single, index) for index in range(num_envs)]
        options: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "copy": False}
        if mode == "sync":
            # Nothing that steps them keeps an observation beyond the next step without copying it.
            envs: gym.vector.VectorEnv = gym.vector.SyncVectorEnv(made, **options)
        else:
            with shielded():
                envs = gym.vector.AsyncVectorEnv(made, **options)
        envs.spec = gym.registry[section.id.rpartition(":")[2]]
        return envs

    def rendered(self, mode: str) -> gym.Env:
        """Makes one environment that renders: "human" in a window, "rgb_array" into frames.

        Raises:
            ConfigError: If the environment does not render.
        """
        section = self._section
        if mode == "rgb_array":
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames need no screen
        try:
            env = gym.make(section.id, render_mode=mode, **section.kwargs)
        except (gym.error.Error, ModuleNotFoundError, TypeError) as error:
            raise ConfigError(f"{self._source}: {section.id} does not render: {first_line(error)}") from None
        for wrap in self._wrappers(self._phase):
            env = wrap(env)
        return self._limited(env)

    @property
    def evaluation_limit(self) -> int | None:
        """Steps after which an evaluation or a film cuts an episode off; None: the environment does."""
        spec = gym.registry.get(self._section.id.rpartition(":")[2])
        limited = spec is None or spec.max_episode_steps is not None
        return None if limited else self._longest

    def _limited(self, env: gym.Env) -> gym.Env:
        """Limits what has no time limit: some policies never end an episode."""
        limit = self.evaluation_limit
        return env if limit is None else gym.wrappers.TimeLimit(env, limit)

    def _made(self, make: Callable[[], Any], creator: Any = None) -> Any:
        """Calls `make`; whatever an environment raises in it becomes an error of one line."""
        section = self._section
        try:
            return make()
        except ConfigError:
            raise
        except Exception as error:
            text = re.split(r" was raised from|\. Did you mean", first_line(error))[0]
            found = re.search(r"unexpected keyword argument '(\w+)'", text)
            if found and found[1] in section.kwargs:
                made_by = creator or _creator(section.id)
                known = [name for name in arguments_of(made_by) if name != "render_mode"] if made_by else []
                hint = choices(found[1], known)
                key, why = f"environment.kwargs.{found[1]}", f"is no argument of {section.id}"
                raise refusal(self._source, key, section.kwargs[found[1]], why, hint=hint) from error
            if isinstance(error, gym.error.Error | ImportError):
                raise refusal(self._source, "environment.id", section.id, text) from error
            why = f"{type(error).__name__}: {self._files.place(error)}"
            if section.kwargs:
                raise refusal(self._source, "environment.kwargs", section.kwargs, why) from error
            raise refusal(self._source, "environment.id", section.id, why) from error

    # Gymnasium ------------------------------------------------------------------------------------

    def _check_id(self) -> None:
        """Refuses ids that Gymnasium does not know, or would have to guess: those without a version."""
        whole = self._section.id
        module, _, name = whole.rpartition(":")
        package = extras.bringing(name)
        if package is not None:
            self._installed("environment.id", whole, package.module)
        if module:
            self._made(lambda: importlib.import_module(module))
        if name in gym.registry:
            return
        why = "Gymnasium knows no such environment"
        namespace = name.rpartition("/")[0]
        if namespace and not any(known.startswith(f"{namespace}/") for known in gym.registry):
            why = f"no installed package brings environments of {namespace!r}"
        raise refusal(self._source, "environment.id", whole, why, hint=nearest(name, gym.registry))

    def _mode(self) -> str:
        """The vectorization mode: the agent's, or the one that Gymnasium would choose.

        That is the environment's own vector version, if it has one; wrappers need single environments.
        """
        section = self._section
        if section.vectorization_mode is not None:
            return section.vectorization_mode
        spec = gym.registry[section.id.rpartition(":")[2]]
        wrapped = section.wrappers or spec.additional_wrappers
        return "sync" if spec.vector_entry_point is None or wrapped else "vector_entry_point"

    def _installed(self, key: str, value: str, module: str) -> Any:
        """Imports a module that the agent file's `key` needs."""
        try:
            return extras.load(module)
        except extras.NotInstalled as error:
            raise refusal(self._source, key, value, first_line(error)) from None

    def _has_twin(self) -> bool:
        """Whether Gymnasium has the same environment, with the same physics."""
        section = self._section
        if section.id not in gym.registry:
            return False
        try:
            gym.make(section.id, **section.kwargs).close()
        except TypeError:
            return False  # arguments that only the TensorFlow environment has
        return True

    def _wrappers(self, phase: int | None) -> list[Callable[[gym.Env], gym.Env]]:
        """Returns functions that wrap an environment, innermost first; `phase` for those that take one."""
        return [self._wrapper(key, section, phase) for key, section in self._wrapper_sections()]

    def _wrapper_sections(self) -> list[tuple[str, Wrapper]]:
        """The wrappers by their keys."""
        return [
            (f"environment.wrappers.{i}", Wrapper(name=each) if isinstance(each, str) else each)
            for i, each in enumerate(self._section.wrappers)
        ]

    def _check_phase(self) -> None:
        """Refuses a phase to evaluate in where nothing takes one."""
        section = self._section
        takers = [self._wrapper_class(key, each.name) for key, each in self._wrapper_sections()]
        if self.tensorflow is not None and not self._has_twin():
            takers.append(type(self.tensorflow))
        if not any("phase" in arguments_of(each) for each in takers):
            why = f"neither {section.id} nor a wrapper of it takes a phase"
            raise refusal(self._source, "evaluation.phase", self._phase, why)

    def _wrapper(self, key: str, section: Wrapper, phase: int | None) -> Callable[[gym.Env], gym.Env]:
        """Returns a function that wraps: by a wrapper of Gymnasium, of a package, or of the user."""
        wrapper = self._wrapper_class(key, section.name)
        arguments = section.model_dump(exclude={"name"})
        if phase is not None and "phase" in arguments_of(wrapper):
            arguments["phase"] = phase

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

    # Other backends -------------------------------------------------------------------------------

    def _tensorflow(self, phase: int | None = None) -> environments.Environment:
        section, known = self._section, environments.ENVIRONMENTS
        if ".py:" in section.id:
            factory = self._files.load("environment.id", section.id)
        elif section.id in known:
            factory = known[section.id]
        else:
            hint = choices(section.id, known)
            why = "there is no such environment with backend 'tensorflow'"
            raise refusal(self._source, "environment.id", section.id, why, hint=hint)
        arguments = section.kwargs if phase is None else section.kwargs | {"phase": phase}
        made = self._made(lambda: factory(**arguments), factory)
        if not isinstance(made, environments.Environment):
            why = "is no rlweights.learning.environments.Environment"
            raise refusal(self._source, "environment.id", section.id, why)
        return made

    def _envpool(self, num_envs: int) -> Any:
        section = self._section
        try:
            import envpool  # pyright: ignore[reportMissingImports]
        except ImportError:
            why = missing("envpool", "envpool")
            raise refusal(self._source, "environment.backend", "envpool", why) from None
        known = envpool.list_all_envs()
        if section.id not in known:
            why, hint = "envpool has no such environment", nearest(section.id, known)
            raise refusal(self._source, "environment.id", section.id, why, hint=hint)

        def make(seed: int) -> Any:
            return envpool.make(
                section.id,
                env_type="gymnasium",
                num_envs=num_envs,
                num_threads=section.num_threads,
                seed=seed,
                **section.kwargs,
            )

        return self._made(lambda: Reseeded(make, self._seed, section.id))


def _form(space: gym.Space) -> tuple[Any, ...]:
    """The properties that two spaces must share for one agent to act in both."""
    return type(space), space.shape, getattr(space, "n", None), getattr(space, "start", None)


def _creator(name: str) -> Any:
    """What Gymnasium calls to make an environment; None if it does not know it."""
    if name not in gym.registry:
        return None
    entry = gym.spec(name).entry_point
    return load_env_creator(entry) if isinstance(entry, str) else entry
