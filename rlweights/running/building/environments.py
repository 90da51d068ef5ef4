"""The environments of one agent: for training, for evaluation, and for rendering."""

import contextlib
import functools
import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from rlweights.errors import ConfigError
from rlweights.learning import environments
from rlweights.learning.continuation import Continuation, ReadState, ReplayedEpisodes, ReplayedVector
from rlweights.learning.distributions import Distribution
from rlweights.learning.environments.action_masks import MaskedObservations, MaskedVector, unmasked_space
from rlweights.learning.environments.envpool import Reseeded
from rlweights.learning.environments.in_turn import SteppedInTurn
from rlweights.learning.environments.processes import WatchedProcesses
from rlweights.learning.environments.replay import SeededEpisodes, described
from rlweights.learning.environments.vector import VectorAdapter
from rlweights.learning.masking import Masking
from rlweights.learning.spaces import Translation
from rlweights.learning.stepper import Stepper
from rlweights.running.building.action_masks import MaskChoice
from rlweights.running.building.singles import Singles
from rlweights.running.building.user_code import UserCode, arguments_of
from rlweights.running.config import extras
from rlweights.running.config.messages import choices, first_line, missing, nearest, refusal
from rlweights.running.config.schema import Agent
from rlweights.running.interrupts import shielded
from rlweights.weights.arrays import Array

PATIENCE = 600.0
"""Seconds that a process of an environment has for an answer, where the agent file does not say."""

LONGEST_EVALUATION = 100_000
"""Steps of an evaluation in an environment that does not limit its episodes, where the file does not say."""


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
        self._section = section = agent.environment
        self._seed = agent.seed
        self._evaluation = agent.evaluation
        self._infos = agent.logging.info
        self._phase = agent.evaluation.phase
        self._files = files
        self._source = files.source
        self._singles = Singles(section, files)
        self._evaluated = Singles(section, files, agent.evaluation.kwargs, "evaluation", self._phase)
        self._masks = MaskChoice(section, self._source)
        self.tensorflow: environments.Environment | None = None
        if section.backend == "tensorflow":
            self.tensorflow = self._tensorflow()
        if self._phase is not None:
            self._check_phase()

    @property
    def home(self) -> str | None:
        """The folder that must be importable for the environment, in another process too."""
        return self._singles.home if self._section.backend == "gymnasium" else None

    def spaces(self) -> tuple[gym.Space, gym.Space]:
        """Returns the spaces of one environment's observations, as networks see them, and actions.

        Raises:
            ConfigError: If agents would train in other spaces than they are evaluated in; or if actions are
                to be masked that cannot be.
        """
        observed, acted, source = self._found
        return unmasked_space(observed, source), acted

    @property
    def action_mask(self) -> str:
        """Where masks of allowed actions come from: "info", "method", "observation" or "none"."""
        return self._found[2]

    @functools.cached_property
    def _found(self) -> tuple[gym.Space, gym.Space, str]:
        """The spaces of one environment, and where its masks come from."""
        twin = self.tensorflow
        if twin is not None:
            found = self._singles.guarded(lambda: (twin.observation_space, twin.action_space))
            return (*found, self._singles.guarded(lambda: self._masks.of_tensorflow(twin)))
        section = self._section
        mode = self._mode() if section.backend == "gymnasium" else section.backend
        alone = mode in ("sync", "async")
        found = self._look_at(self._single(self._singles) if alone else self._bare_vector(1, False))
        if alone and not self._evaluation.kwargs:
            return found
        if not alone and self._vector_only:
            return found
        real = self._look_at(self._single(self._evaluated), found[2])  # other code than what agents train in
        for ours, theirs in zip(found[:2], real[:2], strict=True):
            if _form(ours) != _form(theirs):
                key, value = "environment.vectorization_mode", mode
                if alone:
                    key, value = "evaluation.kwargs", self._evaluation.kwargs
                elif mode == section.backend:
                    key = "environment.backend"
                why = f"has {ours}, where agents are evaluated in {theirs}"
                if alone:
                    why = f"makes {theirs} of what agents train in, {ours}"
                raise refusal(self._source, key, value, why)
        return found

    def _single(self, singles: Singles) -> gym.Env:
        singles.check()
        return singles.guarded(singles.make)

    @functools.cached_property
    def _evaluation_mask(self) -> str:
        """Where the masks come from in evaluations."""
        if self.tensorflow is None or self.action_mask == "none" or not self._has_twin():
            return self.action_mask
        with contextlib.closing(self._single(self._evaluated)) as env:
            return self._masks.of_twin(env)

    def _look_at(self, env: Any, source: str = "") -> tuple[gym.Space, gym.Space, str]:
        """The spaces of an environment, single or one of a vector's, and the source of its masks; closes it.

        Args:
            env: The environment, or the vector.
            source: Of masks, where it is known.
        """
        try:
            if isinstance(env, gym.Env):
                observed, acted = env.observation_space, env.action_space
            else:
                observed, acted = env.single_observation_space, env.single_action_space
            return observed, acted, source or self._masks.of(env, acted)
        finally:
            with contextlib.suppress(Exception):
                env.close()

    @property
    def _is_instance(self) -> bool:
        return isinstance(self._singles.creator, gym.Env)

    @property
    def _vector_only(self) -> bool:
        """Whether the environment has a vector version and nothing else."""
        spec = self._evaluated.spec
        return spec is not None and spec.entry_point is None and spec.vector_entry_point is not None

    def vector(self, num_envs: int, *, evaluation: bool = False) -> gym.vector.VectorEnv:
        """Makes vector environments: for rollouts, or for evaluation in Gymnasium's environment.

        Raises:
            ConfigError: If there is no such environment, or it does not take its arguments.
        """
        envs = self._bare_vector(num_envs, evaluation)
        source: Any = "info" if isinstance(envs, VectorAdapter) else self.action_mask
        whole = not isinstance(envs, SteppedInTurn | WatchedProcesses)  # their single environments are masked
        return MaskedVector(envs, source) if whole and self.action_mask != "none" else envs

    def _bare_vector(self, num_envs: int, evaluation: bool) -> gym.vector.VectorEnv:
        """Makes vector environments; those of single environments have their masks already."""
        section = self._section
        if section.backend == "envpool" and not evaluation:
            return self._envpool(num_envs)
        if self.tensorflow is not None and not self._has_twin():
            told = evaluation and self._phase is not None
            return VectorAdapter(self._tensorflow(self._phase) if told else self.tensorflow, num_envs)
        singles = self._evaluated if evaluation else self._singles
        singles.check()
        if num_envs > 1 and isinstance(singles.creator, gym.Env):
            key = "evaluation.num_envs" if evaluation else "environment.num_envs"
            raise refusal(
                self._source, key, num_envs, "an instance is one environment; give its class instead"
            )
        mode = "sync" if evaluation and not self._vector_only else self._mode()
        if mode != "vector_entry_point":
            return self._vector_of(singles, num_envs, mode, evaluation)
        arguments = singles.arguments()
        return singles.guarded(
            lambda: gym.make_vec(section.id, num_envs, vectorization_mode=mode, **arguments)
        )

    def continued(
        self,
        num_envs: int,
        distribution: Distribution,
        translation: Translation,
        masking: Masking | None = None,
    ) -> Continuation:
        """Makes vector environments for rollouts, with what makes them go on where they were.

        Args:
            num_envs: Number of environments N.
            distribution: Of the actions, with which it is tried whether a state can be read and written.
            translation: See `Stepper`.
            masking: Where encoded observations hold a mask.
        """
        section, judged = self._section, self._evaluation
        stepper = Stepper(self.vector(num_envs), translation)
        if section.backend == "gymnasium" and self._is_instance and judged.every and judged.episodes:
            why = "an instance is one environment, and evaluated when it trains no more; take 0, or its class"
            raise refusal(self._source, "evaluation.every", judged.every, why)
        mode = self._mode() if section.backend == "gymnasium" else section.backend
        if mode in ("sync", "async"):
            return ReplayedEpisodes(stepper)
        rng = np.random.default_rng(0)
        parameters = np.zeros((num_envs, distribution.parameter_size), np.float32)

        def draw(observations: Array) -> Array:
            masked = parameters if masking is None else masking.applied_numpy(parameters, observations)
            return distribution.choose_numpy(masked, rng)

        if mode == "vector_entry_point" and ReadState.holds(stepper, draw):
            return ReadState(stepper)
        return ReplayedVector(stepper)

    def _vector_of(
        self, singles: Singles, num_envs: int, mode: str, evaluation: bool
    ) -> gym.vector.VectorEnv:
        """Makes single environments, stepped one after the other or in a process each."""
        section, made = self._section, []
        role = "evaluation environment" if evaluation else "environment"
        names = () if evaluation else self._infos

        def bare() -> gym.Env:
            env = singles.make()
            source = self._evaluation_mask if evaluation else self.action_mask
            return self._masked(self._limited(env) if evaluation else env, source)

        def single(index: int) -> gym.Env:
            again = bare if section.on_error == "recreate" else None
            env = SeededEpisodes(bare(), index, names, role, again, section.max_recreations)
            for space in ("observation_space", "action_space"):
                one, first = getattr(env, space), getattr(made[0] if made else env, space)
                if _form(one) != _form(first):
                    made.append(env)
                    raise TypeError(f"{role} {index} has the {space} {one}, and the first one {first}")
            made.append(env)
            return env

        makers = [functools.partial(single, index) for index in range(num_envs)]

        def make() -> gym.vector.VectorEnv:
            if mode == "sync":
                return SteppedInTurn(makers)
            with shielded():
                patience = section.timeout or PATIENCE
                # Nothing that steps them keeps an observation beyond the next step without copying it.
                options: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP, "copy": False}
                return WatchedProcesses(makers, singles.name, patience, **options)

        try:
            envs = singles.guarded(make)
        except ConfigError as error:
            for env in made:
                env.close()
            if aside := self._beside(len(made), num_envs, evaluation):
                raise ConfigError(f"{error} ({aside})") from error.__cause__
            raise
        envs.spec = singles.spec
        return envs

    def _masked(self, env: gym.Env, source: Any) -> gym.Env:
        """The environment with its masks as a part of its observations, if it has any."""
        return env if source == "none" else MaskedObservations(env, source)

    def _beside(self, made: int, num_envs: int, evaluation: bool) -> str:
        """What is said where the first of an environment could be made, and another one could not."""
        if evaluation:
            return (
                f"number {made + 1} of {num_envs} for evaluation, beside those for training; without "
                f"evaluation: evaluation.episodes = 0 and evaluation.final_episodes = 0"
            )
        more = 0 < made < num_envs
        return f"number {made + 1} of {num_envs}: environment.num_envs are open at once" if more else ""

    def rendered(self, mode: str) -> gym.Env:
        """Makes one environment that renders: "human" in a window, "rgb_array" into frames.

        Raises:
            ConfigError: If the environment does not render.
        """
        singles = self._evaluated
        if self.tensorflow is not None and not self._has_twin():
            raise ConfigError(
                f"{self._source}: {self._section.id} does not render: it is a TensorFlow environment, and no "
                f"environment of Gymnasium has its name"
            )
        if mode == "rgb_array":
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames need no screen
        singles.check()
        try:
            env = singles.make(mode)
        except ConfigError:
            raise
        except Exception as error:  # whatever a user's environment raises
            known = isinstance(error, gym.error.Error | ImportError)
            text = extras.explained(first_line(error)) if known else described(error)
            raise ConfigError(f"{self._source}: {self._section.id} does not render: {text}") from error
        env = self._masked(self._limited(env), self._evaluation_mask)
        return SeededEpisodes(env, 0, role="rendered environment")

    @property
    def evaluation_limit(self) -> int | None:
        """Steps after which an evaluation or a film cuts an episode off; None: the environment does."""
        if self.tensorflow is not None and not self._has_twin():
            return None
        if self._vector_only:
            return None
        spec = self._evaluated.spec
        limited = spec is not None and spec.max_episode_steps is not None
        return None if limited else self._evaluation.max_episode_steps

    @property
    def evaluation_steps(self) -> int | None:
        """Steps of all episodes of one evaluation together, at most; None: as many as they take."""
        if self._evaluation.max_steps is not None:
            return self._evaluation.max_steps
        return None if self.evaluation_limit is None and not self._vector_only else LONGEST_EVALUATION

    def _limited(self, env: gym.Env) -> gym.Env:
        """Limits what has no time limit: some policies never end an episode."""
        limit = self.evaluation_limit
        return env if limit is None else gym.wrappers.TimeLimit(env, limit)

    # Gymnasium ------------------------------------------------------------------------------------

    def _mode(self) -> str:
        """The vectorization mode: the agent's, or the one that Gymnasium would choose.

        That is the environment's own vector version, if it has one; wrappers need single environments.
        """
        section = self._section
        if section.vectorization_mode is not None:
            return section.vectorization_mode
        self._singles.check()
        spec = self._singles.spec
        if spec is None or spec.vector_entry_point is None:
            return "sync"
        alone = section.wrappers or spec.additional_wrappers or section.render_mode or self._infos
        return "sync" if alone or section.on_error == "recreate" else "vector_entry_point"

    def _has_twin(self) -> bool:
        """Whether Gymnasium has the same environment, with the same physics."""
        if self._section.id not in gym.registry:
            return False
        try:
            self._evaluated.make().close()
        except TypeError:
            return False  # arguments that only the TensorFlow environment has
        return True

    def _check_phase(self) -> None:
        """Refuses a phase to evaluate in where nothing takes one."""
        section = self._section
        takes = self._evaluated.takes_phase
        if self.tensorflow is not None and not self._has_twin():
            takes = takes or "phase" in arguments_of(type(self.tensorflow))
        if not takes:
            why = f"neither {section.id} nor a wrapper of it takes a phase"
            raise refusal(self._source, "evaluation.phase", self._phase, why)

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
        made = self._singles.guarded(lambda: factory(**arguments), factory)
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

        return self._singles.guarded(lambda: Reseeded(make, self._seed, section.id))


def _form(space: gym.Space) -> tuple[Any, ...]:
    """The properties that two spaces must share for one agent to act in both."""
    counts = [np.ravel(getattr(space, name, ())).tolist() for name in ("n", "nvec", "start")]
    return type(space), space.shape, *counts
