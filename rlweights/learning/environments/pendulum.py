"""Pendulum-v1: swing a pendulum up and hold it there with too weak a motor."""

import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class Pendulum(Environment):
    """Twin of Gymnasium's ``Pendulum-v1``.

    The state is (angle, angular velocity), the angle being 0 where the pendulum stands upright and not
    wrapped; the observation is (cosine, sine, angular velocity); the action is a torque. The reward punishes
    the angle, the velocity and the torque of the state that the step began in. Nothing terminates.

    Args:
        g: Gravity, in m/s^2.
        mass: In kg.
        length: In m.
        max_torque: Torques are clipped to plus or minus this, in N m.
        max_speed: Angular velocities are clipped to plus or minus this, in rad/s.
        dt: Time between two steps, in s.
    """

    id = "Pendulum-v1"
    max_episode_steps = 200

    def __init__(
        self,
        *,
        g: float = 10.0,
        mass: float = 1.0,
        length: float = 1.0,
        max_torque: float = 2.0,
        max_speed: float = 8.0,
        dt: float = 0.05,
    ):
        self.g = g
        self.mass = mass
        self.length = length
        self.max_torque = max_torque
        self.max_speed = max_speed
        self.dt = dt

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Cosine, sine and angular velocity."""
        high = np.array([1.0, 1.0, self.max_speed], np.float32)
        return gym.spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gym.spaces.Box:
        """One torque."""
        return gym.spaces.Box(-self.max_torque, self.max_torque, [1], np.float32)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Any angle, and an angular velocity from U(-1, 1)."""
        return draw.uniform([num_envs, 2], -1.0, 1.0) * [math.pi, 1.0]

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One semi-implicit Euler step: the new velocity moves the angle."""
        theta, theta_dot = tf.unstack(state, axis=1)
        torque = tf.clip_by_value(action[:, 0], -self.max_torque, self.max_torque)

        # Rounding, unlike the remainder of a division, is one vector instruction on a CPU.
        upright = theta - 2 * math.pi * tf.round(theta / (2 * math.pi))
        cost = tf.square(upright) + 0.1 * tf.square(theta_dot) + 0.001 * tf.square(torque)

        weight = 3 * self.g / (2 * self.length) * tf.sin(theta)
        motor = 3 / (self.mass * self.length**2) * torque
        theta_dot = theta_dot + (weight + motor) * self.dt
        theta_dot = tf.clip_by_value(theta_dot, -self.max_speed, self.max_speed)
        theta = theta + theta_dot * self.dt
        return tf.stack([theta, theta_dot], axis=1), -cost, tf.zeros_like(theta, tf.bool)

    def observe(self, state: Tensor) -> Tensor:
        """The angle as cosine and sine, then the angular velocity."""
        theta, theta_dot = tf.unstack(state, axis=1)
        return tf.stack([tf.cos(theta), tf.sin(theta), theta_dot], axis=1)
