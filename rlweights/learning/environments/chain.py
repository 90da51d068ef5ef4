"""Chain: an exploration problem of adjustable difficulty (Osband et al. 2016; Plappert et al. 2018, 4.3)."""

import gymnasium as gym
import numpy as np
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class Chain(Environment):
    """States s1 to sN in a row; the episode begins in s2 and lasts N + 9 steps.

    Action 0 moves to the left, 1 to the right. Trying to leave the chain at s1 rewards 0.001, at sN 1;
    everything else rewards nothing. Going right always returns 11, going left always about 0.01, and a
    random policy almost never sees the far end of a long chain.

    The state is the position, int32 [N, 1] counted from 0; the observation is a thermometer: ones up to
    the position, then zeros.

    Args:
        length: The number of states; at least 3.

    Raises:
        ValueError: If the chain is too short.
    """

    id = "Chain"

    def __init__(self, *, length: int = 20):
        if length < 3:
            raise ValueError(f"Chain: length must be at least 3, got {length}.")
        self.length = length
        self.max_episode_steps = length + 9

    @property
    def observation_space(self) -> gym.spaces.Box:
        """A thermometer of `length` entries."""
        return gym.spaces.Box(0.0, 1.0, [self.length], np.float32)

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Left or right."""
        return gym.spaces.Discrete(2)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Always s2."""
        return tf.ones([num_envs, 1], tf.int32)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One move along the chain; only the time limit ends an episode."""
        position, last = state[:, 0], self.length - 1
        right = action == 1
        reward = tf.where(right & (position == last), 1.0, tf.where(~right & (position == 0), 0.001, 0.0))
        position = tf.clip_by_value(position + tf.where(right, 1, -1), 0, last)
        return position[:, None], reward, tf.zeros_like(right)

    def observe(self, state: Tensor) -> Tensor:
        """Ones up to the position, then zeros."""
        return tf.cast(tf.range(self.length) <= state, tf.float32)
