"""Acrobot-v1: swing the tip of a two-link arm above a line with a motor in its elbow (Sutton 1996)."""

import math
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import tensorflow as tf

from rlweights.learning.environments.base import Draw, Environment
from rlweights.weights.arrays import Tensor


class Acrobot(Environment):
    """Twin of Gymnasium's ``Acrobot-v1``, with the equations of the book (Sutton and Barto 2018).

    The state is (angle 1, angle 2, angular velocity 1, angular velocity 2), angle 1 being 0 where the
    first link hangs down and angle 2 being relative to it; the observation has cosine and sine of each
    angle. The actions are the torques -1, 0 and 1 N m on the elbow. Every step costs 1, but for the one
    that lifts the tip above the line, which terminates.

    Args:
        gravity: In m/s^2.
        link_length_1: In m; the length of link 2 matters only for the line, which is always 1 m up.
        link_mass_1: In kg.
        link_mass_2: In kg.
        link_com_pos_1: Distance of the center of mass from the shoulder, in m.
        link_com_pos_2: Distance of the center of mass from the elbow, in m.
        link_moi: Moment of inertia of each link, in kg m^2.
    """

    id = "Acrobot-v1"
    max_episode_steps = 500
    max_vel_1 = 4 * math.pi
    max_vel_2 = 9 * math.pi
    dt = 0.2

    def __init__(
        self,
        *,
        gravity: float = 9.8,
        link_length_1: float = 1.0,
        link_mass_1: float = 1.0,
        link_mass_2: float = 1.0,
        link_com_pos_1: float = 0.5,
        link_com_pos_2: float = 0.5,
        link_moi: float = 1.0,
    ):
        self.gravity = gravity
        self.link_length_1 = link_length_1
        self.link_mass_1 = link_mass_1
        self.link_mass_2 = link_mass_2
        self.link_com_pos_1 = link_com_pos_1
        self.link_com_pos_2 = link_com_pos_2
        self.link_moi = link_moi

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Cosine and sine of both angles, then both angular velocities."""
        high = np.array([1.0, 1.0, 1.0, 1.0, self.max_vel_1, self.max_vel_2], np.float32)
        return gym.spaces.Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> gym.spaces.Discrete:
        """Torque -1, 0 or 1."""
        return gym.spaces.Discrete(3)

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Hanging and nearly at rest: all four numbers from U(-0.1, 0.1)."""
        return draw.uniform([num_envs, 4], -0.1, 0.1)

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """One Runge-Kutta step of fourth order; angles are wrapped, velocities clipped."""
        torque = tf.cast(action, tf.float32) - 1.0
        start = tf.unstack(state, axis=1)

        def moved(slope: Sequence[Tensor], seconds: float) -> list[Tensor]:
            return [y + seconds * k for y, k in zip(start, slope, strict=True)]

        k1 = self._slope(start, torque)
        k2 = self._slope(moved(k1, self.dt / 2), torque)
        k3 = self._slope(moved(k2, self.dt / 2), torque)
        k4 = self._slope(moved(k3, self.dt), torque)
        theta_1, theta_2, dtheta_1, dtheta_2 = (
            y + self.dt / 6 * (a + 2 * b + 2 * c + d)
            for y, a, b, c, d in zip(start, k1, k2, k3, k4, strict=True)
        )

        theta_1, theta_2 = _wrapped(theta_1), _wrapped(theta_2)
        dtheta_1 = tf.clip_by_value(dtheta_1, -self.max_vel_1, self.max_vel_1)
        dtheta_2 = tf.clip_by_value(dtheta_2, -self.max_vel_2, self.max_vel_2)
        terminated = -tf.cos(theta_1) - tf.cos(theta_1 + theta_2) > 1.0
        reward = tf.cast(terminated, tf.float32) - 1.0
        return tf.stack([theta_1, theta_2, dtheta_1, dtheta_2], axis=1), reward, terminated

    def _slope(self, state: Sequence[Tensor], torque: Tensor) -> tuple[Tensor, ...]:
        """Time derivatives of the four columns of the state: the equations of motion."""
        theta_1, theta_2, dtheta_1, dtheta_2 = state
        cos_2, sin_2 = tf.cos(theta_2), tf.sin(theta_2)
        coupling = self.link_mass_2 * self.link_length_1 * self.link_com_pos_2
        inertia_2 = self.link_mass_2 * self.link_com_pos_2**2 + self.link_moi
        inertia_1 = self.link_mass_1 * self.link_com_pos_1**2 + self.link_moi
        d1 = inertia_1 + inertia_2 + self.link_mass_2 * self.link_length_1**2 + 2 * coupling * cos_2
        d2 = inertia_2 + coupling * cos_2
        moment_1 = self.link_mass_1 * self.link_com_pos_1 + self.link_mass_2 * self.link_length_1
        moment_2 = self.link_mass_2 * self.link_com_pos_2
        phi_2 = moment_2 * self.gravity * tf.sin(theta_1 + theta_2)
        phi_1 = (
            -coupling * sin_2 * dtheta_2 * (dtheta_2 + 2 * dtheta_1)
            + moment_1 * self.gravity * tf.sin(theta_1)
            + phi_2
        )
        ratio = d2 / d1
        ddtheta_2 = (torque + ratio * phi_1 - coupling * tf.square(dtheta_1) * sin_2 - phi_2) / (
            inertia_2 - d2 * ratio
        )
        ddtheta_1 = -(d2 * ddtheta_2 + phi_1) / d1
        return dtheta_1, dtheta_2, ddtheta_1, ddtheta_2

    def observe(self, state: Tensor) -> Tensor:
        """The angles as cosine and sine, then the angular velocities."""
        theta_1, theta_2, dtheta_1, dtheta_2 = tf.unstack(state, axis=1)
        angles = [tf.cos(theta_1), tf.sin(theta_1), tf.cos(theta_2), tf.sin(theta_2)]
        return tf.stack([*angles, dtheta_1, dtheta_2], axis=1)


def _wrapped(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi]."""
    return angle - 2 * math.pi * tf.round(angle / (2 * math.pi))
