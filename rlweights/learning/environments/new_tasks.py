"""New tasks for ever: an environment whose observations, and actions, mean something else in each phase.

What stays learnable for ever is plasticity: each task is as hard as the first one, and what was learned on
the last one is of little use. Permuted inputs are the common form (Kumar et al. 2023; Elsayed et al. 2024).
"""

import inspect
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import tensorflow as tf
from scipy.stats import ortho_group

from rlweights.learning.environments.acrobot import Acrobot
from rlweights.learning.environments.base import Draw, Environment
from rlweights.learning.environments.cartpole import CartPole
from rlweights.learning.environments.pendulum import Pendulum
from rlweights.learning.environments.wrapper import EnvironmentWrapper
from rlweights.weights.arrays import Tensor

KINDS = ("orthogonal", "permutation")


class NewTasks(EnvironmentWrapper):
    """Any environment, seen through a matrix that is another one in each phase.

    An episode belongs to the phase in which it begins and keeps it to its end: the phase is the last column
    of the state [N, S + 1]. Phase 0 is the environment itself. The agent is not told the phase.

    Args:
        environment: The environment; its observations are vectors.
        period: Vector steps from one phase to the next.
        kind: ``"orthogonal"``: observations are multiplied by a random orthogonal matrix, drawn uniformly
            (Haar), which keeps their length; ``"permutation"``: their entries change places.
        actions: Whether the actions change places as well; they must be discrete.
        seed: Seed of matrices and permutations: the tasks do not depend on the seed of the run.
        tasks: How many there are; after the last one, the first one comes again.
        phase: Always this phase instead: for evaluation, and to learn one task alone.

    Raises:
        ValueError: Something does not fit together; the message says what.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        period: int = 5_000,
        kind: str = "orthogonal",
        actions: bool = False,
        seed: int = 0,
        tasks: int = 1_000,
        phase: int | None = None,
    ):
        space: Any = environment.observation_space
        _require(
            isinstance(space, gym.spaces.Box) and len(space.shape) == 1 and space.shape[0] > 1,
            f"{environment.id}: new tasks need observations that are vectors, not {space}.",
        )
        _require(kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        _require(period >= 1, f"period must be at least 1, got {period}.")
        _require(tasks >= 1, f"tasks must be at least 1, got {tasks}.")
        _require(phase is None or phase >= 0, f"phase must be at least 0, got {phase}.")
        discrete = isinstance(environment.action_space, gym.spaces.Discrete)
        _require(discrete or not actions, f"{environment.id}: only discrete actions can change places.")
        super().__init__(environment)
        self.period = period
        self.id = f"NewTasks{environment.id}"
        self._phase = phase
        self.matrices = _matrices(kind, tasks, space.shape[0], seed)  # [tasks, O, O] float32
        self.permutations: Any = None  # [tasks, A] int32: what the environment gets for each action
        if actions:
            count = int(environment.action_space.n)  # pyright: ignore[reportAttributeAccessIssue]
            self.permutations = _permutations(tasks, count, [seed, 1]).astype(np.int32)

    @property
    def observation_space(self) -> gym.spaces.Box:
        """As many numbers as the environment's own, of any size."""
        return gym.spaces.Box(-np.inf, np.inf, self.environment.observation_space.shape, np.float32)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Begins episodes of the environment in the phase of the time."""
        state = self.environment.reset(num_envs, draw)
        now = draw.clock // self.period if self._phase is None else self._phase
        column = tf.fill([num_envs, 1], tf.cast(now, state.dtype))  # float32 counts to 2^24 exactly
        return tf.concat([state, column], axis=1)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Steps the environment; the phase stays."""
        inner, column = state[:, :-1], state[:, -1:]
        if self.permutations is not None:
            order = tf.gather(tf.constant(self.permutations), self._task(state))
            action = tf.gather(order, action, batch_dims=1)
        reached, reward, terminated = self.environment.step(inner, action, draw)
        return tf.concat([reached, column], axis=1), reward, terminated

    def observe(self, state: Tensor) -> Tensor:
        """What the environment shows, multiplied by the matrix of the episode's phase."""
        seen = self.environment.observe(state[:, :-1])
        matrices = tf.gather(tf.constant(self.matrices), self._task(state))
        # A sum of products: for a few numbers faster than small matrix products, and the same in any batch.
        return tf.reduce_sum(matrices * seen[:, None, :], axis=2)

    def action_mask(self, state: Tensor) -> Tensor | None:
        """The environment's masks, in the places that the actions have in the episode's phase."""
        mask = self.environment.action_mask(state[:, :-1])
        if mask is None or self.permutations is None:
            return mask
        order = tf.gather(tf.constant(self.permutations), self._task(state))
        return tf.gather(mask, order, batch_dims=1)

    def phase(self, state: Tensor) -> Tensor:
        """The phase of each episode, int32 [N]."""
        return tf.cast(state[:, -1], tf.int32)

    def _task(self, state: Tensor) -> Tensor:
        return tf.math.floormod(self.phase(state), len(self.matrices))


_ARGUMENTS = set(inspect.signature(NewTasks).parameters) - {"environment"}


class _NewTasksOf(NewTasks):
    """New tasks in one environment of this package, whose arguments are taken beside those of `NewTasks`."""

    inner: ClassVar[type[Environment]]
    each: ClassVar[int] = 5_000  # the period, unless told otherwise

    def __init__(self, **arguments: Any):
        mine = {name: arguments.pop(name) for name in _ARGUMENTS & arguments.keys()}
        super().__init__(self.inner(**arguments), **{"period": self.each} | mine)


class NewTasksCartPole(_NewTasksOf):
    """CartPole in new tasks for ever, 5,000 steps each; takes what `NewTasks` and `CartPole` take."""

    inner = CartPole


class NewTasksAcrobot(_NewTasksOf):
    """Acrobot in new tasks for ever, 10,000 steps each; takes what `NewTasks` and `Acrobot` take."""

    inner = Acrobot
    each = 10_000


class NewTasksPendulum(_NewTasksOf):
    """Pendulum in new tasks for ever, 10,000 steps each; takes what `NewTasks` and `Pendulum` take."""

    inner = Pendulum
    each = 10_000


def _matrices(kind: str, tasks: int, size: int, seed: int) -> np.ndarray:
    """One matrix for each task, [tasks, size, size] float32; the first one changes nothing."""
    if kind == "orthogonal":
        drawn = ortho_group.rvs(size, tasks, random_state=np.random.default_rng([seed, 0]))
        matrices = np.reshape(drawn, (tasks, size, size)).astype(np.float32)
    else:
        matrices = np.eye(size, dtype=np.float32)[_permutations(tasks, size, [seed, 0])]
    matrices[0] = np.eye(size)
    return matrices


def _permutations(tasks: int, size: int, seed: list[int]) -> np.ndarray:
    """One permutation for each task, [tasks, size]; the first one changes nothing."""
    ordered = np.tile(np.arange(size), (tasks, 1))
    permutations = np.random.default_rng(seed).permuted(ordered, axis=1)
    permutations[0] = np.arange(size)
    return permutations


def _require(condition: bool, message: str):
    if not condition:
        raise ValueError(message)
