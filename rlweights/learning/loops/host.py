"""Iterations in which Python steps Gymnasium's vector environments."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights.learning.acting import NumpyPolicy
from rlweights.learning.batch import Batch
from rlweights.learning.continuation import Continuation
from rlweights.learning.inspection import PROBE_SIZE
from rlweights.learning.learner import Learner
from rlweights.learning.loops.base import Row
from rlweights.learning.rollout import Rollout
from rlweights.learning.spaces import ObservationEncoder
from rlweights.weights.arrays import Array, Tensor
from rlweights.weights.compilation import TaggedScalars, compiled


class HostLoop:
    """Iterations in Gymnasium vector environments.

    Args:
        learner: The agent's learner.
        episodes: N environments, and how they go on where they were; the loop closes them.
        encoder: Of their observations.
        seed: Seed of environments and actions.
    """

    def __init__(self, learner: Learner, episodes: Continuation, encoder: ObservationEncoder, seed: int):
        self.variables: list[Any] = []
        self.cuts = episodes.cuts
        self.most_iterations = 1
        self.warning = episodes.warning
        self.set_parameters = episodes.set_parameters
        self.envs = episodes.stepper.envs
        self.rollout = Rollout(episodes, learner.distribution, learner.algorithm.n_steps, seed)
        self.programs = HostPrograms(
            learner,
            encoder.shape,
            encoder.dtype,
            self.envs.num_envs,
            xla=not encoder.has_images,  # networks of convolutions take XLA many times as long
        )
        self._encoder = encoder
        self._reward_scaling = learner.reward_scaling
        self._rollout_size = learner.algorithm.n_steps * self.envs.num_envs
        self._observations: Array | None = None

    def begin(self, iteration: int, attempt: int) -> None:
        """Begins new episodes everywhere, seeded by (seed, iteration, attempt)."""
        self.rollout.begin(iteration, attempt)
        self._forget(np.ones(self.envs.num_envs, bool))

    def state(self) -> dict[str, Array]:
        """Returns the running episodes: what has happened in them, and how to come back there."""
        return self.rollout.state()

    def restore(self, state: Mapping[str, Array]) -> None:
        """Goes on with the episodes of a state."""
        self.rollout.restore(state)

    def advance(self, iteration: int, limit: int) -> list[Row]:
        """Runs one iteration."""
        self.programs.begin()
        batch, episodes = self.rollout.collect(self.programs.policy, self.programs.value, iteration)
        self._observations = batch.observations
        scalars = self.programs.learn(batch)
        self._forget(self.rollout.renew(iteration + 1))
        return [(scalars, episodes)]

    def _forget(self, cut: Array) -> None:
        """Takes the returns of episodes that were cut [N] out of the scaling of rewards."""
        if self._reward_scaling is not None and cut.any():
            returns = self._reward_scaling.returns
            returns.assign(np.where(cut, np.float32(0.0), returns.numpy()))

    def probe(self) -> Array:
        """Returns the observations of the newest rollout, with zeros for what is not finite."""
        assert self._observations is not None
        probe = self._observations.reshape(-1, *self._observations.shape[2:])[:PROBE_SIZE]
        return np.nan_to_num(probe, nan=0.0, posinf=0.0, neginf=0.0)

    @property
    def probe_spec(self) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of one rollout's observations, at most PROBE_SIZE of them."""
        return (min(PROBE_SIZE, self._rollout_size), *self._encoder.shape), self._encoder.dtype

    def close(self) -> None:
        """Closes the environments; what they raise then can no longer harm anything."""
        with contextlib.suppress(Exception):
            self.envs.close()


_NUMBERS = ("rewards", "terminated", "truncated", "valid", "final_values", "has_final")
"""What a batch has as [T, N] float32; they cross the border to TensorFlow as one tensor."""


class HostPrograms:
    """The programs that a training loop in Gymnasium calls: `begin`, `policy`, `value` and `learn`.

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

        def spec(*shape: int, dtype: Any = tf.float32) -> tf.TensorSpec:
            return tf.TensorSpec(shape, dtype)

        def observation(*leading: int) -> tf.TensorSpec:
            return spec(*leading, *observation_shape, dtype=observation_dtype)

        actions = spec(T, N, *distribution.action_shape, dtype=distribution.action_dtype)
        self.num_envs = num_envs
        self._scalars = TaggedScalars(optional=("rollout/",))
        self._numpy = NumpyPolicy(networks.policy) if NumpyPolicy.supports(networks.policy) else None

        def begin() -> Tensor:
            learner.optimizer.begin_iteration()
            return tf.zeros([0]) if self._numpy is None else self._numpy.flat()

        self._begin = compiled(begin, xla=xla)

        def learn(
            observations: Tensor, actions: Tensor, last_observations: Tensor, numbers: Tensor
        ) -> Tensor:
            batch = Batch(
                observations=observations,
                actions=actions,
                last_observations=last_observations,
                **dict(zip(_NUMBERS, tf.unstack(numbers), strict=True)),
            )
            return self._scalars.packed(learner.learn(batch))

        numbers = spec(len(_NUMBERS), T, N)
        self._learn = compiled(learn, observation(T, N), actions, observation(N), numbers, xla=xla)
        self._value = compiled(networks.values, observation(N), xla=xla)
        self._policy = None
        if self._numpy is None:
            self._policy = compiled(networks.policy, observation(N), xla=xla)

    def begin(self) -> None:
        """Begins an iteration: rules placed "during_iteration" draw; the acting policy takes the weights."""
        weights = self._begin()
        if self._numpy is not None:
            self._numpy.refresh(weights.numpy())

    def policy(self, observations: Array) -> Array:
        """Returns the distribution parameters [N, P] of observations [N, ...]."""
        if self._numpy is not None:
            with np.errstate(invalid="ignore", over="ignore"):  # the learner skips what is not finite
                return self._numpy(observations)
        assert self._policy is not None
        return self._policy(tf.constant(observations)).numpy()

    def value(self, observations: Array) -> Array:
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
        return self._scalars.unpacked(self._learn(*map(tf.constant, arrays)).numpy())
