"""CartPole-v1: balance a pole on a cart (Barto, Sutton and Anderson 1983)."""

import math

import gymnasium as gym
import numpy as np
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class CartPole(Environment):
    """Twin of Gymnasium's ``CartPole-v1``.

    The state, which is also the observation, is (cart position, cart velocity, pole angle, pole angular
    velocity); the actions are 0, push to the left, and 1, push to the right. Every step rewards 1, the
    terminating one too.

    Args:
        sutton_barto_reward: Reward 0, and -1 on the terminating step, instead.
        gravity: In m/s^2.
        masscart: In kg.
        masspole: In kg.
        length: Half the length of the pole, in m.
        force_mag: Force of a push, in N.
        tau: Time between two steps, in s.
    """

    id = "CartPole-v1"
    max_episode_steps = 500
    x_threshold = 2.4
    theta_threshold_radians = math.radians(12)

    def __init__(
        self,
        *,
        sutton_barto_reward: bool = False,
        gravity: float = 9.8,
        masscart: float = 1.0,
        masspole: float = 0.1,
        length: float = 0.5,
        force_mag: float = 10.0,
        tau: float = 0.02,
    ):
        self.sutton_barto_reward = sutton_barto_reward
        self.gravity = gravity
        self.masscart = masscart
        self.masspole = masspole
        self.length = length
        self.force_mag = force_mag
        self.tau = tau

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Twice the thresholds, so that the terminating observation lies inside."""
        high = [2 * self.x_threshold, math.inf, 2 * self.theta_threshold_radians, math.inf]
        high = np.array(high, np.float32)
        return gym.spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Left or right."""
        return gym.spaces.Discrete(2)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Near the middle, upright and at rest: all four numbers from U(-0.05, 0.05)."""
        return draw.uniform([num_envs, 4], -0.05, 0.05)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One explicit Euler step of the equations of motion (Florian 2005, without friction)."""
        x, x_dot, theta, theta_dot = tf.unstack(state, axis=1)
        total_mass = self.masscart + self.masspole
        polemass_length = self.masspole * self.length

        force = tf.where(action == 1, self.force_mag, -self.force_mag)
        cos, sin = tf.cos(theta), tf.sin(theta)
        push = (force + polemass_length * tf.square(theta_dot) * sin) / total_mass
        theta_acc = (self.gravity * sin - cos * push) / (
            self.length * (4.0 / 3.0 - self.masspole * tf.square(cos) / total_mass)
        )
        x_acc = push - polemass_length * theta_acc * cos / total_mass

        x = x + self.tau * x_dot
        x_dot = x_dot + self.tau * x_acc
        theta = theta + self.tau * theta_dot
        theta_dot = theta_dot + self.tau * theta_acc

        terminated = (tf.abs(x) > self.x_threshold) | (tf.abs(theta) > self.theta_threshold_radians)
        reward = -tf.cast(terminated, tf.float32) if self.sutton_barto_reward else tf.ones_like(x)
        return tf.stack([x, x_dot, theta, theta_dot], axis=1), reward, terminated
