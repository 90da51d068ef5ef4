"""A trained agent: a run folder turned back into a policy that acts."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlweights.errors import BrokenEnvironment, CheckpointError, ConfigError
from rlweights.learning.evaluation import Result, evaluation_seed
from rlweights.learning.fitting import batched, with_masks
from rlweights.running.building.policy import Policy
from rlweights.running.config import objects
from rlweights.running.config.schema import Agent
from rlweights.running.diagnosis.judgement import Diagnosis, diagnose
from rlweights.running.notebooks import table
from rlweights.running.records.event_file import read_scalars
from rlweights.running.saving import checkpoint_file, run_folder
from rlweights.running.video import play
from rlweights.weights.arrays import Array

WHICH = ("best", "latest")


class Series(NamedTuple):
    """One scalar over a run, as TensorBoard shows it."""

    steps: Array  # [rows] int64, environment steps
    values: Array  # [rows] float64


class TrainedAgent:
    """The policy of a run, with the weights of its best evaluation or its latest ones.

    Args:
        run: The run folder, or the name of a pretrained agent.
        which: "best" or "latest"; best falls back to latest if no evaluation was made.
        env: Another environment to act in, as for `Recipe`; None: the run's.
        env_kwargs: Arguments of the environment that differ, any Python objects.

    Attributes:
        folder: The run folder.
        weights: The file that the weights came from.
        metadata: What that file says about them: the environment step, and the mean return if it is known.
        policy: Spaces, networks and environments, see `rlweights.running.building.policy.Policy`.

    Raises:
        ConfigError: If the folder is no run, or holds no weights yet; or the weights do not fit `env`.
        CheckpointError: If the weights are damaged.
    """

    def __init__(
        self,
        run: str | Path,
        which: str = "best",
        *,
        env: Any = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        self.folder = run_folder.find(run)
        if which not in WHICH:
            raise ConfigError(f"which = {which!r}: takes {' or '.join(map(repr, WHICH))}")
        agent = _elsewhere(run_folder.read(self.folder), env, env_kwargs or {})
        candidates = [self.folder / name / "weights.safetensors" for name in (which, "latest")]
        found = next((each for each in candidates if each.is_file()), None)
        if found is None:
            raise ConfigError(f"{run}: holds no weights yet; they are saved by the first evaluation")
        self.weights = found
        self._draws = np.random.default_rng(agent.seed)
        self.policy = Policy(agent, str(self.folder / run_folder.AGENT), self.folder)
        variables = {v.path: v for v in self.policy.networks.variables}
        expect = {name: (tuple(v.shape), v.dtype) for name, v in variables.items()}
        try:
            tensors, self.metadata = checkpoint_file.load(found, expect)
        except CheckpointError as error:
            if env is None and not env_kwargs:
                raise
            name = agent.environment.id
            raise ConfigError(
                f"{run}: what it has learned does not fit the spaces of {name}: {error}"
            ) from None
        for name, variable in variables.items():
            variable.assign(tensors[name])
        self._act = self.policy.acting()

    def __repr__(self) -> str:
        facts = self._facts()
        return f"TrainedAgent({str(self.folder)!r}, {', '.join(facts.values())})"

    def _repr_html_(self) -> str:
        return table(f"TrainedAgent {self.folder}", self._facts())

    def _facts(self) -> dict[str, str]:
        agent = self.policy.agent
        found, mean = self.weights.parent.name, self.metadata.get("mean_reward")
        reached = "" if mean is None else f", mean return {mean:.1f}"
        return {
            "environment": agent.environment.id,
            "algorithm": agent.algorithm.name,
            "weights": f"{found} at {self.metadata['env_steps']:,} steps{reached}",
        }

    def history(self) -> dict[str, Series]:
        """Returns every scalar that the run has recorded, by tag; docs/tensorboard.md explains them."""
        return {
            tag: Series(*(np.array(column) for column in zip(*points, strict=True)))
            for tag, points in read_scalars(self.folder).items()
        }

    def diagnose(self) -> Diagnosis:
        """Says what is wrong with the run, by what it has recorded, and what to try.

        Raises:
            ConfigError: If it has recorded nothing.
        """
        return diagnose(self.folder)

    def predict(
        self,
        observations: Any,
        deterministic: bool = True,
        seed: int | None = None,
        action_masks: Any = None,
    ) -> Array:
        """Returns actions [N, ...] for a batch of observations, in the form that the environment takes.

        Args:
            observations: A batch in the form that Gymnasium's vector environments give, or one observation.
            deterministic: Whether to take the most likely action rather than to sample.
            seed: Seed of sampled actions; None: each call draws on.
            action_masks: Which actions are allowed, 1 or 0 for each, [N, P], or [P] for one observation; for
                an agent with masks. Left out where the observations themselves have a key "action_mask".

        Returns:
            An action for each observation [N, ...]; for one observation one action, as `env.step` takes it.

        Raises:
            ConfigError: If it is neither, or not finite; the message has both shapes. Or if masks are missing
                or allow nothing, or the agent has none.
        """
        return self._predicted(*self._batched(observations, action_masks), deterministic, seed)

    def _batched(self, observations: Any, masks: Any) -> tuple[Any, bool]:
        source, space = self.policy.environments.action_mask, self.policy.action_space
        if source == "none" and masks is not None:
            raise ConfigError("action_masks: this agent acts without masks")
        try:
            if source != "none":
                observations = with_masks(observations, masks, source, space)
            return batched(self.policy.encoder.space, observations)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _predicted(
        self, batch: Any, single: bool, deterministic: bool = True, seed: int | None = None
    ) -> Any:
        try:
            with np.errstate(over="ignore"):  # said below
                encoded = self.policy.encoder.encode(batch)
        except (ValueError, TypeError, IndexError) as error:
            raise ConfigError(f"observations do not fit {self.policy.encoder.space}: {error}") from None
        if encoded.dtype.kind == "f" and not np.isfinite(encoded).all():
            raise ConfigError(f"observations: some are too large for {encoded.dtype}")
        rng = None
        if not deterministic:
            rng = self._draws if seed is None else np.random.default_rng(_whole("seed", seed, 0))
        actions = self.policy.translation.decode(
            self.policy.distribution.choose_numpy(self._act(encoded), rng)
        )
        if not single:
            return actions
        box = self.policy.action_space.shape == () and actions.dtype.kind == "f"
        return np.asarray(actions[0]) if box else actions[0]  # a box without dimensions contains arrays only

    def evaluate(
        self, episodes: int = 100, seed: int | None = None, deterministic: bool | None = None
    ) -> Result:
        """Runs whole episodes in the real environment.

        Args:
            episodes: Number of episodes.
            seed: Seed of environments and of sampled actions; None: the one of the run's evaluations.
            deterministic: Whether to take the most likely action rather than to sample; None: the agent
                file's `evaluation.deterministic`.

        Raises:
            BrokenEnvironment: If the environment fails.
            ConfigError: If there is to be no episode, or the seed is none.
        """
        seed = evaluation_seed(self.policy.agent.seed) if seed is None else _whole("seed", seed, 0)
        episodes = _whole("episodes", episodes, 1)
        size = min(episodes, self.policy.agent.evaluation.num_envs)
        envs = self.policy.environments.vector(size, evaluation=True)
        with self._traced(), contextlib.closing(envs):
            return self.policy.evaluate(self._act, envs, episodes, seed, deterministic)

    def frames(self, episodes: int = 1, seed: int = 10_000) -> tuple[list[Array], list[float], float]:
        """Plays episodes in the rendered environment, acting as in the run's evaluations.

        Args:
            episodes: Number of episodes.
            seed: Seed of the first episode; each further one has the next seed.

        Returns:
            The frames [H, W, 3] uint8, one for every state, the last one included; the return of each
            episode; and the frames per second.

        Raises:
            ConfigError: If the environment does not render.
        """
        env = self.policy.environments.rendered("rgb_array")
        frames: list[Array] = []
        returns = self._play(env, episodes, seed, lambda: frames.append(np.asarray(env.render(), np.uint8)))
        return frames, returns, float(env.metadata.get("render_fps", 30))

    def show(self, episodes: int = 1, seed: int = 10_000) -> list[float]:
        """Plays episodes in a window, acting as in the run's evaluations; returns the return of each.

        Args:
            episodes: Number of episodes.
            seed: Seed of the first episode; each further one has the next seed.

        Raises:
            ConfigError: If the environment does not render.
        """
        return self._play(self.policy.environments.rendered("human"), episodes, seed, lambda: None)

    def _play(self, env: Any, episodes: int, seed: int, look: Callable[[], Any]) -> list[float]:
        with self._traced(), contextlib.closing(env):
            seeds = range(seed, seed + episodes)
            return [play(env, self.policy.performer(self._act, each), each, look) for each in seeds]

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Writes the traceback of what an environment has raised into the run folder, and says where."""
        try:
            yield
        except BrokenEnvironment as error:
            if not error.details:
                raise
            path = self.folder / "error.txt"
            try:
                path.write_text(error.details, encoding="utf-8")
            except OSError:
                raise error from None
            raise BrokenEnvironment(f"{error}. The whole traceback: {path}") from error

    def act(self, observation: Any, action_mask: Any = None) -> Any:
        """Returns the most likely action for one observation.

        Args:
            observation: The observation.
            action_mask: Which actions are allowed [P], see `predict`.

        Raises:
            ConfigError: If it is not one, or not finite; the message has both shapes.
        """
        batch, single = self._batched(observation, action_mask)
        if not single:
            raise ConfigError("observations of a batch: act takes one observation; predict takes a batch")
        return self._predicted(batch, single)


def _elsewhere(agent: Agent, env: Any, kwargs: Mapping[str, Any]) -> Agent:
    """The agent, to act in another environment or with other arguments of it."""
    section, evaluation = agent.environment, agent.evaluation
    if env is not None:
        text = env if isinstance(env, str) else objects.environment_reference(env)
        section = section.model_copy(
            update={"id": text, "backend": "gymnasium", "vectorization_mode": None, "num_threads": 0}
        )
        if objects.is_instance(env):
            evaluation = evaluation.model_copy(update={"num_envs": 1})
    others = {key: objects.encoded(value) for key, value in kwargs.items()}
    evaluation = evaluation.model_copy(update={"kwargs": evaluation.kwargs | others})
    return agent.model_copy(update={"environment": section, "evaluation": evaluation})


def _whole(argument: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{argument} = {value!r}: must be a whole number of at least {least}")
    return int(value)
