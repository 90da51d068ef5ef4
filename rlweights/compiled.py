"""The compiled programs of an agent: the only place where TensorFlow traces anything.

Each program is traced once, for fixed shapes, before training starts, and called as a concrete function:
that costs half of what a call through `tf.function` does.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlweights import draws
from rlweights.environments import Draw, Environment, VectorState, final_observations, reset_all, step_all
from rlweights.learner import Batch, Learner
from rlweights.networks import NumpyPolicy

_as_written = tf.autograph.experimental.do_not_convert


def compiled(function: Callable, *specs: Any, xla: bool = True) -> Any:
    """Traces a function once for the given specs and returns it as a concrete function."""
    traced = tf.function(_as_written(function), jit_compile=xla, autograph=False)
    return traced.get_concrete_function(*specs)


_NUMBERS = ("rewards", "terminated", "truncated", "valid", "final_values", "has_final")
"""What a batch has as [T, N] float32. They travel as one tensor, and scalars come back as one vector.

Each tensor that crosses the border costs more than what is computed from it.
"""


class HostPrograms:
    """What a Gymnasium training loop calls: `begin`, `policy`, `value` and `learn`.

    Args:
        learner: The agent's learner.
        observation_shape: Shape of one encoded observation.
        observation_dtype: Its dtype.
        num_envs: Number of environments N.
        xla: Whether to compile with XLA.
    """

    def __init__(
        self,
        learner: Learner,
        observation_shape: tuple[int, ...],
        observation_dtype: str,
        num_envs: int,
        xla: bool = True,
    ):
        T, N = learner.algorithm.n_steps, num_envs
        distribution, networks = learner.distribution, learner.networks

        def spec(*shape, dtype: Any = tf.float32):
            return tf.TensorSpec(shape, dtype)

        def observation(*leading):
            return spec(*leading, *observation_shape, dtype=observation_dtype)

        actions = spec(T, N, *distribution.action_shape, dtype=distribution.action_dtype)
        self.num_envs = num_envs
        self._tags: list[str] = []
        self._numpy = NumpyPolicy(networks.policy) if NumpyPolicy.supports(networks.policy) else None

        def begin():
            learner.optimizer.begin_iteration()
            return tf.zeros([0]) if self._numpy is None else self._numpy.flat()

        self._begin = compiled(begin, xla=xla)

        def learn(observations, actions, last_observations, numbers):
            batch = Batch(
                observations=observations,
                actions=actions,
                last_observations=last_observations,
                **dict(zip(_NUMBERS, tf.unstack(numbers), strict=True)),
            )
            scalars = learner.learn(batch)
            self._tags = list(scalars)
            return tf.stack([tf.cast(scalars[tag], tf.float32) for tag in self._tags])

        numbers = spec(len(_NUMBERS), T, N)
        self._learn = compiled(learn, observation(T, N), actions, observation(N), numbers, xla=xla)
        self._value = compiled(networks.values, observation(N), xla=xla)
        self._policy = None
        if self._numpy is None:
            self._policy = compiled(networks.policy, observation(N), xla=xla)

    def begin(self) -> None:
        """Begins an iteration: undone rules draw, and the acting policy takes their weights."""
        weights = self._begin()
        if self._numpy is not None:
            self._numpy.refresh(weights.numpy())

    def policy(self, observations: np.ndarray) -> np.ndarray:
        """Returns the distribution parameters [N, P] of observations [N, ...]."""
        if self._numpy is not None:
            with np.errstate(invalid="ignore", over="ignore"):  # the learner skips what is not finite
                return self._numpy(observations)
        assert self._policy is not None
        return self._policy(tf.constant(observations)).numpy()

    def value(self, observations: np.ndarray) -> np.ndarray:
        """Returns V [K] of observations [K, ...], for any K."""
        size = len(observations)
        values = []
        for start in range(0, size, self.num_envs):
            part = observations[start : start + self.num_envs]
            padding = np.zeros((self.num_envs - len(part), *part.shape[1:]), part.dtype)
            values.append(self._value(tf.constant(np.concatenate([part, padding]))).numpy())
        return np.concatenate(values)[:size]

    def learn(self, batch: Batch) -> dict[str, float]:
        """Updates the agent by a rollout and returns the scalars of the update."""
        numbers = np.stack([getattr(batch, name) for name in _NUMBERS])
        arrays = (batch.observations, batch.actions, batch.last_observations, numbers)
        scalars = self._learn(*map(tf.constant, arrays)).numpy()
        return dict(zip(self._tags, scalars.tolist(), strict=True))


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
        self._environment = environment
        self._num_envs = num_envs
        self.seed = _state(tf.constant(seed), "environment/seed")
        first = reset_all(environment, num_envs, Draw(seed, 0))
        self._episodes = VectorState(*(_state(x, f"environment/{n}") for n, x in first._asdict().items()))
        self._clock = _state(tf.constant(0), "environment/clock")
        self._tags: list[str] = []
        self._iterate = compiled(self._iterations, tf.TensorSpec([], tf.int32))

    @property
    def variables(self) -> list[Any]:
        """The environments' state."""
        return [*self._episodes, self._clock, self.seed]

    def probe(self, size: int) -> np.ndarray:
        """Returns observations [size, ...] of environments of their own, after ten random actions each."""
        environment, distribution = self._environment, self._learner.distribution
        draw = draws.uniform if distribution.noise_kind == "uniform" else draws.normal
        episodes = reset_all(environment, size, Draw(0, 0, "probe"))
        for clock in range(10):
            noise = draw(distribution.noise_shape((size,)), 0, "probe", clock)
            action = distribution.sample(tf.zeros((size, distribution.parameter_size)), noise)
            episodes, _ = step_all(environment, episodes, action, Draw(0, clock, "probe"))
        return environment.observe(episodes.state).numpy()

    def iterate(self, count: int) -> list[dict[str, float]]:
        """Runs `count` iterations, at most ROWS, and returns the scalars of each."""
        rows = self._iterate(tf.constant(count)).numpy()[:count]
        return [dict(zip(self._tags, row.tolist(), strict=False)) for row in rows]

    def _iterations(self, count):
        """The program: [ROWS, COLUMNS] scalars, of which `count` rows are filled."""

        def iteration(i, rows):
            scalars = self._iteration()
            self._tags = list(scalars)
            row = tf.stack([tf.cast(scalars[tag], tf.float32) for tag in self._tags])
            row = tf.pad(row, [[0, COLUMNS - len(self._tags)]])
            return i + 1, tf.tensor_scatter_nd_update(rows, [[i]], row[None])

        start = (tf.constant(0), tf.zeros([ROWS, COLUMNS]))
        return tf.while_loop(lambda i, _: i < count, iteration, start, maximum_iterations=ROWS)[1]

    def _iteration(self) -> dict[str, Any]:
        """One rollout and its update."""
        self._learner.optimizer.begin_iteration()
        batch, scalars = self._rollout()
        return scalars | self._learner.learn(batch)

    def _rollout(self) -> tuple[Batch, dict[str, Any]]:
        learner, environment = self._learner, self._environment
        T, N = learner.algorithm.n_steps, self._num_envs
        distribution = learner.distribution
        clock, seed = tf.convert_to_tensor(self._clock), tf.convert_to_tensor(self.seed)
        draw = draws.uniform if distribution.noise_kind == "uniform" else draws.normal
        noise = draw(distribution.noise_shape((T, N)), seed, "actions", learner.iteration.value)
        episodes = VectorState(*(tf.convert_to_tensor(x) for x in self._episodes))

        def step(t, episodes, record):
            parameters = learner.networks.policy(environment.observe(episodes.state))
            action = distribution.sample(parameters, noise[t])
            following, outcome = step_all(environment, episodes, action, Draw(seed, clock + t))
            values = (episodes.state, action, *outcome)
            record = tuple(array.write(t, x) for array, x in zip(record, values, strict=True))
            return t + 1, following, record

        kinds = (
            self._episodes.state.dtype,
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
            variable.assign(value)
        self._clock.assign_add(T)

        ended = tf.cast(terminated | truncated, tf.float32)
        scalars = {
            "episodes/count": tf.reduce_sum(ended),
            "episodes/total_return": tf.reduce_sum(returns * ended),
            "episodes/total_length": tf.reduce_sum(tf.cast(lengths, tf.float32) * ended),
        }
        observations = environment.observe(tf.reshape(states, [T * N, *states.shape[2:]]))
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

    def _revived(self, episodes: VectorState, observations, draw: Draw) -> VectorState:
        """Begins new episodes where observation or return are not finite: they would stay so for ever."""
        size = self._num_envs
        finite = tf.math.is_finite(episodes.episode_return)
        if observations.dtype.is_floating:
            finite &= tf.reduce_all(tf.math.is_finite(tf.reshape(observations, [size, -1])), axis=1)

        def revived():
            fresh = reset_all(self._environment, size, draw.named("revival"))
            return [
                tf.where(tf.reshape(finite, [size] + [1] * (old.shape.rank - 1)), old, new)
                for old, new in zip(episodes, fresh, strict=True)
            ]

        return VectorState(*tf.cond(tf.reduce_all(finite), lambda: list(episodes), revived))

    def _final_values(self, states, actions, truncated, draw: Draw):
        """V of the final observations, recomputed in one batch, and only if an episode was cut off."""
        T, N = states.shape[:2]

        def recomputed():
            clocks = draw.clock + tf.range(T)
            finals = final_observations(self._environment, states, actions, clocks, draw)
            values = self._learner.networks.values(tf.reshape(finals, [T * N, *finals.shape[2:]]))
            return tf.reshape(values, (T, N))

        return tf.cond(tf.reduce_any(truncated), recomputed, lambda: tf.zeros((T, N)))


def _state(value, name: str):
    """A variable that is neither trained nor part of a network."""
    value = tf.convert_to_tensor(value)
    return keras.Variable(value, dtype=value.dtype.name, trainable=False, name=name.replace("/", "_"))
