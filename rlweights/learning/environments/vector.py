"""An environment that is a TensorFlow function, as a Gymnasium vector environment.

For environments without a twin in Gymnasium, whose agents are evaluated and played in the same code.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from rlweights.learning.environments.base import Draw, Environment, VectorState, reset_all, step_all
from rlweights.weights.arrays import Array, Scalar, Tensor
from rlweights.weights.compilation import compiled


class VectorAdapter(gym.vector.VectorEnv):
    """N copies of an environment, reset in the step that ends an episode.

    Args:
        environment: The environment.
        num_envs: Number of copies N.
    """

    def __init__(self, environment: Environment, num_envs: int):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.environment = environment
        self.num_envs = num_envs
        self.single_observation_space = environment.observation_space
        self.single_action_space = environment.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        discrete = isinstance(self.single_action_space, gym.spaces.Discrete)
        self._kind = tf.int32 if discrete else tf.float32
        self._start = int(self.single_action_space.start) if discrete else 0
        self._episodes: Any = None
        self._program: Any = None
        self._seed, self._clock = 0, 0

    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Begins all episodes; of a list of seeds the first one counts."""
        if seed is not None:
            self._seed = seed[0] if isinstance(seed, list) else seed
        self._clock = 0
        self._episodes = reset_all(self.environment, self.num_envs, Draw(self._seed, 0, "evaluation"))
        if self._program is None:
            self._program = self._compiled()
        return self.environment.observe(self._episodes.state).numpy(), self._masks(self._episodes.state)

    def _masks(self, state: Tensor) -> dict[str, Any]:
        """The info of states: their masks, where the environment has some."""
        mask = self.environment.action_mask(state)
        return {} if mask is None else {"action_mask": mask.numpy()}

    def step(self, actions: ArrayLike) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Steps all copies; the final observation of an episode is in `info["final_obs"]`."""
        actions = tf.constant(np.asarray(actions) - self._start, self._kind)
        seed, clock = tf.constant(self._seed), tf.constant(self._clock)
        *episodes, observations, final, reward, terminated, truncated = self._program(
            *self._episodes, actions, seed, clock
        )
        self._clock += 1
        self._episodes = VectorState(*episodes)
        terminated, truncated = terminated.numpy(), truncated.numpy()
        info = self._masks(self._episodes.state)
        if (terminated | truncated).any():
            info |= {"final_obs": final.numpy(), "_final_obs": terminated | truncated}
        return observations.numpy(), reward.numpy(), terminated, truncated, info

    def _compiled(self) -> Any:
        environment = self.environment

        def step(
            state: Tensor,
            elapsed: Tensor,
            episode_return: Tensor,
            actions: Tensor,
            seed: Scalar,
            clock: Scalar,
        ) -> tuple[Tensor, ...]:
            draw = Draw(seed, clock, "evaluation")
            before = VectorState(state, elapsed, episode_return)
            after, outcome = step_all(environment, before, actions, draw)
            final = environment.observe(environment.step(state, actions, draw)[0])
            seen = environment.observe(after.state)
            return (*after, seen, final, outcome.reward, outcome.terminated, outcome.truncated)

        shape = (self.num_envs, *(self.single_action_space.shape or ()))
        specs = [tf.TensorSpec(x.shape, x.dtype) for x in self._episodes]
        scalar = tf.TensorSpec([], tf.int32)
        return compiled(step, *specs, tf.TensorSpec(shape, self._kind), scalar, scalar)
