"""MountainCar-v0 and MountainCarContinuous-v0: rock an underpowered car out of a valley (Moore 1990)."""

import gymnasium as gym
import numpy as np
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class _Valley(Environment):
    """The base of both cars: the valley, the observation (position, velocity) and the start."""

    min_position, max_position, max_speed = -1.2, 0.6, 0.07
    goal_position: float

    def __init__(self, goal_velocity: float, gravity: float):
        self.goal_velocity = goal_velocity
        self.gravity = gravity

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Position and velocity."""
        low = np.array([self.min_position, -self.max_speed], np.float32)
        high = np.array([self.max_position, self.max_speed], np.float32)
        return gym.spaces.Box(low, high, dtype=np.float32)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """At rest near the bottom: the position from U(-0.6, -0.4)."""
        position = draw.uniform([num_envs, 1], -0.6, -0.4)
        return tf.concat([position, tf.zeros_like(position)], axis=1)

    def _drive(self, state: Tensor, acceleration: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the next state [N, 2], and bool [N]: whether the car reached the goal fast enough."""
        position, velocity = tf.unstack(state, axis=1)
        velocity = velocity + acceleration - self.gravity * tf.cos(3 * position)
        velocity = tf.clip_by_value(velocity, -self.max_speed, self.max_speed)
        position = tf.clip_by_value(position + velocity, self.min_position, self.max_position)
        # The wall at the left end stops the car; it does not bounce.
        at_wall = position <= self.min_position
        velocity = tf.where(at_wall, tf.maximum(velocity, 0.0), velocity)
        arrived = (position >= self.goal_position) & (velocity >= self.goal_velocity)
        return tf.stack([position, velocity], axis=1), arrived


class MountainCar(_Valley):
    """Twin of Gymnasium's ``MountainCar-v0``: push left, nothing or push right; each step costs 1.

    Args:
        goal_velocity: The car must arrive at least this fast.
        force: Acceleration of a push, in position per step^2.
        gravity: Acceleration on the steepest slope, in position per step^2.
    """

    id = "MountainCar-v0"
    max_episode_steps = 200
    goal_position = 0.5

    def __init__(self, *, goal_velocity: float = 0.0, force: float = 0.001, gravity: float = 0.0025):
        super().__init__(goal_velocity, gravity)
        self.force = force

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Left, nothing or right."""
        return gym.spaces.Discrete(3)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the car; -1 even where it arrives."""
        push = tf.cast(action - 1, tf.float32) * self.force
        state, terminated = self._drive(state, push)
        return state, tf.fill([state.shape[0]], -1.0), terminated


class MountainCarContinuous(_Valley):
    """Twin of Gymnasium's ``MountainCarContinuous-v0``: reward 100 at the goal, pushes cost.

    Args:
        goal_velocity: The car must arrive at least this fast.
        power: Acceleration of a push of 1, in position per step^2.
        gravity: Acceleration on the steepest slope, in position per step^2.
    """

    id = "MountainCarContinuous-v0"
    max_episode_steps = 999
    goal_position = 0.45

    def __init__(self, *, goal_velocity: float = 0.0, power: float = 0.0015, gravity: float = 0.0025):
        super().__init__(goal_velocity, gravity)
        self.power = power

    @property
    def action_space(self) -> gym.spaces.Box:
        """One push between -1 and 1."""
        return gym.spaces.Box(-1.0, 1.0, [1], np.float32)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the car; the push is clipped, but its cost is not, as in Gymnasium."""
        push = action[:, 0]
        state, terminated = self._drive(state, tf.clip_by_value(push, -1.0, 1.0) * self.power)
        reward = tf.where(terminated, 100.0, 0.0) - 0.1 * tf.square(push)
        return state, reward, terminated
