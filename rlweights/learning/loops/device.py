"""Iterations that are one compiled program: environment, policy, learner and rules."""

import copy
import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from rlweights.errors import BrokenEnvironment
from rlweights.learning.batch import Batch, Episodes
from rlweights.learning.environments.base import (
    Draw,
    Environment,
    VectorState,
    final_observations,
    reset_all,
    step_all,
)
from rlweights.learning.environments.masked import Masked
from rlweights.learning.inspection import PROBE_SIZE
from rlweights.learning.learner import Learner
from rlweights.learning.loops.base import Row
from rlweights.learning.spaces import ObservationEncoder
from rlweights.weights import prng
from rlweights.weights.arrays import Array, Scalar, Tensor, Variable
from rlweights.weights.compilation import TaggedScalars, compiled

ROWS, COLUMNS = 64, 128
"""Iterations that one call of the whole-loop program runs at most, and scalars of each at most."""


class GraphPrograms:
    """The whole training loop as one program: environment, policy, learner and rules.

    Python calls it for many iterations at once and gets one row of scalars for each. The environments'
    states are variables, so a checkpoint of them continues exactly.

    Args:
        learner: The agent's learner.
        environment: The environment as TensorFlow functions.
        num_envs: Number of environments N.
        seed: Seed of environments and actions.
    """

    def __init__(self, learner: Learner, environment: Environment, num_envs: int, seed: int):
        self._learner = learner
        self._original = environment
        self._parameters: dict[str, tf.Variable] = {}
        self._num_envs = num_envs
        self.seed = _state(tf.constant(seed), "environment/seed")
        self._masking = learner.networks.masking
        first = reset_all(environment, num_envs, Draw(seed, 0))
        self._episodes = VectorState(*(_state(x, f"environment/{n}") for n, x in first._asdict().items()))
        self._clock = _state(tf.constant(0), "environment/clock")
        self._kinds = VectorState(*(tf.convert_to_tensor(x).dtype for x in first))
        self._compile()

    def _compile(self) -> None:
        self._scalars = TaggedScalars(optional=("rollout/",))
        self._iterate = compiled(self._iterations, tf.TensorSpec([], tf.int32))

    @property
    def variables(self) -> list[Variable]:
        """The environments' state."""
        return [*self._episodes, self._clock, self.seed]

    @property
    def _environment(self) -> Environment:
        """The environment; attributes that have been set are read from variables."""
        present = self._original
        if self._parameters:
            present = copy.copy(self._original)
            for name, variable in self._parameters.items():
                setattr(present, name, tf.convert_to_tensor(variable))
        return self._seen_by_agents(present)

    def _seen_by_agents(self, environment: Environment) -> Environment:
        """The environment; its observations have masks behind them if the agent takes masks."""
        return environment if self._masking is None else Masked(environment)

    @property
    def environment_id(self) -> str:
        """What errors call the environment."""
        return self._original.id

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Sets attributes of the environment that are floats; a name that is new compiles the program again.

        Raises:
            ValueError: If there is no such attribute; the message lists those that there are.
        """
        own = vars(self._original)
        floats = [name for name, value in own.items() if type(value) is float]
        for name, value in parameters.items():
            if name not in floats:
                raise ValueError(
                    f"{self._original.id} has no parameter {name!r} that the program reads; it has: "
                    f"{', '.join(floats) or 'none'}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name!r} of {self._original.id} is a number, not {value!r}")
        new = [name for name in parameters if name not in self._parameters]
        self._parameters |= {name: tf.Variable(own[name], trainable=False, dtype=tf.float32) for name in new}
        for name, variable in self._parameters.items():
            variable.assign(parameters.get(name, own[name]))
        if new:
            self._compile()

    def probe(self, size: int) -> Array:
        """Returns observations [size, ...] of separate environments, after ten random actions each."""
        environment, distribution = self._seen_by_agents(self._original), self._learner.distribution
        draw = prng.uniform if distribution.noise_kind == "uniform" else prng.normal
        episodes = reset_all(environment, size, Draw(0, 0, "probe"))
        for clock in range(10):
            noise = draw(distribution.noise_shape((size,)), 0, "probe", clock)
            parameters = tf.zeros((size, distribution.parameter_size))
            if self._masking is not None:
                parameters = self._masking.applied(parameters, environment.observe(episodes.state))
            action = distribution.sample(parameters, noise)
            episodes, _ = step_all(environment, episodes, action, Draw(0, clock, "probe"))
        return environment.observe(episodes.state).numpy()

    def iterate(self, count: int) -> list[dict[str, float]]:
        """Runs `count` iterations, at most ROWS, and returns the scalars of each."""
        rows = self._iterate(tf.constant(count)).numpy()[:count]
        return [self._scalars.unpacked(row) for row in rows]

    def _iterations(self, count: Scalar) -> Tensor:
        """The program: [ROWS, COLUMNS] scalars, of which `count` rows are filled."""

        def iteration(i: Scalar, rows: Tensor) -> tuple[Scalar, Tensor]:
            row = self._scalars.packed(self._iteration())
            row = tf.pad(row, [[0, COLUMNS - row.shape[0]]])
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], row[None])

        start = (tf.constant(0), tf.zeros([ROWS, COLUMNS]))
        return tf.while_loop(lambda i, _: i < count, iteration, start, maximum_iterations=ROWS)[1]

    def _iteration(self) -> dict[str, Scalar]:
        """One rollout and its update."""
        self._learner.optimizer.begin_iteration()
        batch, scalars = self._rollout()
        return scalars | self._learner.learn(batch)

    def _rollout(self) -> tuple[Batch, dict[str, Scalar]]:
        learner, environment = self._learner, self._environment
        T, N = learner.algorithm.n_steps, self._num_envs
        distribution = learner.distribution
        clock, seed = (tf.cast(each.value, tf.int32) for each in (self._clock, self.seed))
        draw = prng.uniform if distribution.noise_kind == "uniform" else prng.normal
        noise = draw(distribution.noise_shape((T, N)), seed, "actions", learner.iteration.value)
        episodes = VectorState(
            *(tf.cast(x.value, kind) for x, kind in zip(self._episodes, self._kinds, strict=True))
        )

        def step(t: Scalar, episodes: VectorState, record: tuple[Any, ...]) -> tuple[Any, ...]:
            parameters = learner.networks.policy(environment.observe(episodes.state))
            action = distribution.sample(parameters, noise[t])
            following, outcome = step_all(environment, episodes, action, Draw(seed, clock + t))
            values = (episodes.state, action, *outcome)
            record = tuple(array.write(t, x) for array, x in zip(record, values, strict=True))
            return t + 1, following, record

        kinds = (
            self._kinds.state,
            distribution.action_dtype,
            *("float32", "bool", "bool", "float32", "int32"),
        )
        record = tuple(tf.TensorArray(kind, T, clear_after_read=False) for kind in kinds)
        _, episodes, record = tf.while_loop(
            lambda t, *_: t < T, step, (tf.constant(0), episodes, record), maximum_iterations=T
        )
        states, actions, rewards, terminated, truncated, returns, lengths = (a.stack() for a in record)
        states = tf.ensure_shape(states, (T, *self._episodes.state.shape))
        actions = tf.ensure_shape(actions, (T, N, *distribution.action_shape))
        last_observations = environment.observe(episodes.state)
        following = self._revived(episodes, last_observations, Draw(seed, clock + T))
        for variable, value in zip(self._episodes, following, strict=True):
            variable.assign(tf.cast(value, variable.dtype))
        self._clock.assign_add(T)

        ended = tf.cast(terminated | truncated, tf.float32)
        scalars = {
            "episodes/count": tf.reduce_sum(ended),
            "episodes/total_return": tf.reduce_sum(returns * ended),
            "episodes/total_length": tf.reduce_sum(tf.cast(lengths, tf.float32) * ended),
            "episodes/lowest": tf.reduce_min(tf.where(ended > 0, returns, float("inf"))),
            "episodes/highest": tf.reduce_max(tf.where(ended > 0, returns, -float("inf"))),
        }
        scalars |= self._phases(states, returns, ended, episodes.state)
        observations = environment.observe(tf.reshape(states, [T * N, *states.shape[2:]]))
        if self._masking is not None:
            scalars[_NO_CHOICE] = self._masking.without_choice(observations)
        batch = Batch(
            tf.reshape(observations, [T, N, *observations.shape[1:]]),
            actions,
            tf.ensure_shape(rewards, (T, N)),
            tf.cast(tf.ensure_shape(terminated, (T, N)), tf.float32),
            tf.cast(tf.ensure_shape(truncated, (T, N)), tf.float32),
            tf.ones((T, N)),
            last_observations,
            self._final_values(states, actions, truncated, Draw(seed, clock)),
            tf.ensure_shape(ended, (T, N)),
        )
        return batch, scalars

    def _phases(self, states: Tensor, returns: Tensor, ended: Tensor, running: Tensor) -> dict[str, Tensor]:
        """What ended in the two newest phases, and which are running; nothing where tasks do not change."""
        phases = self._environment.phase(tf.reshape(states, [-1, *states.shape[2:]]))
        present = self._environment.phase(running)
        if phases is None or present is None:
            return {}
        phases, newest = tf.reshape(phases, ended.shape), tf.reduce_max(present)
        scalars = {"phases/newest": newest, "phases/oldest": tf.reduce_min(present)}
        for back in range(_PHASES_BACK):
            among = ended * tf.cast(phases == newest - back, tf.float32)
            scalars[f"phases/count/{back}"] = tf.reduce_sum(among)
            scalars[f"phases/total_return/{back}"] = tf.reduce_sum(returns * among)
        return {tag: tf.cast(value, tf.float32) for tag, value in scalars.items()}

    def _revived(self, episodes: VectorState, observations: Tensor, draw: Draw) -> VectorState:
        """Begins new episodes where observation or return are not finite: they would stay so forever."""
        size = self._num_envs
        finite = tf.math.is_finite(episodes.episode_return)
        if observations.dtype.is_floating:
            finite &= tf.reduce_all(tf.math.is_finite(tf.reshape(observations, [size, -1])), axis=1)

        def revived() -> list[Tensor]:
            fresh = reset_all(self._environment, size, draw.named("revival"))
            return [
                tf.where(tf.reshape(finite, [size] + [1] * (old.shape.rank - 1)), old, new)
                for old, new in zip(episodes, fresh, strict=True)
            ]

        return VectorState(*tf.cond(tf.reduce_all(finite), lambda: list(episodes), revived))

    def _final_values(self, states: Tensor, actions: Tensor, truncated: Tensor, draw: Draw) -> Tensor:
        """V of the final observations, recomputed in one batch, and only if an episode was cut off."""
        T, N = states.shape[:2]

        def recomputed() -> Tensor:
            clocks = draw.clock + tf.range(T)
            finals = final_observations(self._environment, states, actions, clocks, draw)
            values = self._learner.networks.values(tf.reshape(finals, [T * N, *finals.shape[2:]]))
            return tf.reshape(values, (T, N))

        return tf.cond(tf.reduce_any(truncated), recomputed, lambda: tf.zeros((T, N)))


def _state(value: Tensor, name: str) -> Variable:
    """A variable that is neither trained nor part of a network.

    Of int32 it becomes int64: TensorFlow keeps variables of int32 in the memory of the host.
    """
    value = tf.convert_to_tensor(value)
    if value.dtype == tf.int32:
        value = tf.cast(value, tf.int64)
    return keras.Variable(value, dtype=value.dtype.name, trainable=False, name=name.replace("/", "_"))


SECONDS_PER_CALL = 0.5
"""About how long the whole-loop program runs before Python gets to show something."""


class GraphLoop:
    """Iterations in environments that are TensorFlow functions, many in one call.

    Args:
        learner: The agent's learner.
        environment: The environment.
        encoder: Of its observations.
        num_envs: Number of environments N.
        seed: Seed of environments and actions.
    """

    cuts = ""
    most_iterations = ROWS

    def __init__(
        self,
        learner: Learner,
        environment: Environment,
        encoder: ObservationEncoder,
        num_envs: int,
        seed: int,
    ):
        self.programs = GraphPrograms(learner, environment, num_envs, seed)
        self.variables = self.programs.variables
        self.set_parameters = self.programs.set_parameters
        self._encoder = encoder
        self._seed = seed
        self._count = 1

    def begin(self, iteration: int, attempt: int) -> None:
        """Only another attempt needs another seed: the environments' state is among the variables."""
        self.programs.seed.assign(self._seed + 7_919 * attempt)

    def warning(self) -> str:
        """Nothing goes wrong here that is worth a line."""
        return ""

    def state(self) -> dict[str, Array]:
        """Nothing is left over: the environments' state is among the variables."""
        return {}

    def restore(self, state: Mapping[str, Array]) -> None:
        """There is nothing to restore."""

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs as many iterations as take about SECONDS_PER_CALL, at most `limit`."""
        count = min(limit, self._count)
        started = time.monotonic()
        rows = self.programs.iterate(count)
        elapsed = max(time.monotonic() - started, 1e-6)
        empty = [row.pop(_NO_CHOICE, 0.0) for row in rows]
        if any(empty):
            raise BrokenEnvironment(
                f"{self.programs.environment_id}: action_mask(state) allowed no action in "
                f"{int(max(empty))} steps of a rollout"
            )
        self._count = int(min(ROWS, max(1, self._count * 2), max(1, count * SECONDS_PER_CALL / elapsed)))
        return [(scalars, _episodes(scalars)) for scalars in rows]

    def probe(self) -> Array:
        """Returns PROBE_SIZE observations [B, ...] of separate environments, after ten random actions."""
        return self.programs.probe(PROBE_SIZE)

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of PROBE_SIZE observations."""
        return (PROBE_SIZE, *self._encoder.shape), self._encoder.dtype

    def close(self) -> None:
        """Does nothing: this loop holds nothing that needs closing."""


_NO_CHOICE = "masks/without_choice"
"""Scalar of an iteration: steps in which a mask allowed nothing; a program cannot raise."""

_PHASES_BACK = 2
"""Phases whose episodes are counted in one iteration: the newest one, and the one before it."""


def _episodes(scalars: dict[str, float]) -> Episodes:
    """Takes from the scalars of an iteration what they say of its episodes."""

    def count(tag: str) -> int:
        return int(scalars.pop(tag))

    episodes = Episodes(
        count("episodes/count"), scalars.pop("episodes/total_return"), count("episodes/total_length")
    )
    extremes = scalars.pop("episodes/lowest"), scalars.pop("episodes/highest")
    if episodes.count:
        episodes.extremes = extremes
    if "phases/newest" in scalars:
        newest = count("phases/newest")
        episodes.running_phases = count("phases/oldest"), newest
        for back in range(_PHASES_BACK):
            found = count(f"phases/count/{back}"), scalars.pop(f"phases/total_return/{back}")
            if found[0]:
                episodes.phases[newest - back] = found
    return episodes
