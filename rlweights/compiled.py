"""The compiled programs of an agent: the only place where TensorFlow traces anything.

Each program is traced once, for fixed shapes, before training starts, and called as a concrete function:
that costs half of what a call through `tf.function` does.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from rlweights.learner import Batch, Learner
from rlweights.networks import NumpyPolicy

_as_written = tf.autograph.experimental.do_not_convert


def compiled(function: Callable, *specs: Any, xla: bool = True) -> Any:
    """Traces a function once for the given specs and returns it as a concrete function."""
    traced = tf.function(_as_written(function), jit_compile=xla, autograph=False)
    return traced.get_concrete_function(*specs)


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
        scalars = [spec(T, N) for _ in range(4)]
        self.num_envs = num_envs
        self._begin = None
        if learner.optimizer.acts_at_begin:
            self._begin = compiled(learner.optimizer.begin_iteration, xla=xla)
        else:
            learner.optimizer.begin_iteration()
        self._tags: list[str] = []

        def learn(*batch):
            # One vector instead of dozens of scalars: fetching each costs more than computing it.
            scalars = learner.learn(Batch(*batch))
            self._tags = list(scalars)
            return tf.stack([tf.cast(scalars[tag], tf.float32) for tag in self._tags])

        self._learn = compiled(
            learn,
            observation(T, N),
            actions,
            *scalars,
            observation(N),
            spec(T, N),
            spec(T, N),
            xla=xla,
        )
        self._value = compiled(networks.values, observation(N), xla=xla)
        self._numpy = NumpyPolicy(networks.policy) if NumpyPolicy.supports(networks.policy) else None
        self._policy = None
        if self._numpy is None:
            self._policy = compiled(networks.policy, observation(N), xla=xla)

    def begin(self) -> None:
        """Begins an iteration: undone rules draw, and the acting policy takes their weights."""
        if self._begin is not None:
            self._begin()
        if self._numpy is not None:
            self._numpy.refresh()

    def policy(self, observations: np.ndarray) -> np.ndarray:
        """Returns the distribution parameters [N, P] of observations [N, ...]."""
        if self._numpy is not None:
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
        scalars = self._learn(*(tf.constant(x) for x in batch)).numpy()
        return dict(zip(self._tags, scalars.tolist(), strict=True))
