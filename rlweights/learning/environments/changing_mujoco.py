"""MuJoCo bodies whose task, motors, sensors or world change while they are trained: a Gymnasium wrapper."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

CHANGES = ("direction", "motors", "sensors", "friction", "gravity")


class ChangingMujoco(gym.Wrapper):
    """A MuJoCo environment that is another one in each phase of `period` steps.

    What holds in a phase is a function of (seed, number of the phase), so it is the same in all environments
    side by side. An episode belongs to the phase in which it is reset and keeps it to its end; phase 0 is
    the environment itself. The agent is not told the phase; `info["phase"]` says it, at resets too.

    The phase is a function of one number, `steps_made`: whoever replays or resumes the environment assigns it
    before the reset.

    Args:
        env: The environment.
        changes: What changes. "direction": the reward for moving forward changes its sign from phase to
            phase (phases with odd numbers go backward). "motors": actions change places and signs. "sensors":
            observations do. "friction": that of sliding is multiplied by 10^U(-1.3, 0.7). "gravity": it is
            multiplied by U(0.5, 1.5).
        period: Steps of this environment from one phase to the next.
        seed: Seed of what is drawn.
        phase: Always this phase instead: for evaluation, and to learn one task alone.

    Attributes:
        steps_made: How many steps this environment has made, over all its episodes.
        phase: The phase of the running episode.

    Raises:
        ValueError: Something does not fit together; the message says what.
    """

    def __init__(
        self,
        env: gym.Env,
        changes: Sequence[str] = ("direction",),
        period: int = 16_384,
        seed: int = 0,
        phase: int | None = None,
    ):
        super().__init__(env)
        model = getattr(env.unwrapped, "model", None)
        name = getattr(env.spec, "id", None) or type(env.unwrapped).__name__
        _require(hasattr(model, "geom_friction"), f"{name} is no MuJoCo environment.")
        unknown = [each for each in changes if each not in CHANGES]
        _require(
            bool(changes) and not unknown and not isinstance(changes, str),
            f"changes must be some of {', '.join(CHANGES)}, got {changes!r}.",
        )
        _require(period >= 1, f"period must be at least 1, got {period}.")
        _require(phase is None or phase >= 0, f"phase must be at least 0, got {phase}.")
        actions: Any = env.action_space
        mirrored = np.all(actions.low == -actions.high) and np.ptp(actions.high) == 0
        _require("motors" not in changes or bool(mirrored), f"{name}: motors with unequal bounds: {actions}.")
        self.steps_made = 0
        self.phase = -1
        self._changes = frozenset(changes)
        self._period, self._seed, self._fixed = period, seed, phase
        self._model: Any = model
        self._friction, self._gravity = self._model.geom_friction.copy(), self._model.opt.gravity.copy()
        self._begin(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Begins an episode in the phase of the time; `info["phase"]` says which."""
        phase = self.steps_made // self._period if self._fixed is None else self._fixed
        if phase != self.phase:
            self._begin(phase)
        observation, info = self.env.reset(seed=seed, options=options)
        return self._seen(observation), info | {"phase": self.phase}

    def step(self, action: Any):
        """Steps the environment as it is in this phase."""
        self.steps_made += 1
        order, signs = self._motors
        observation, reward, terminated, truncated, info = self.env.step(np.asarray(action)[order] * signs)
        if self._backward:
            reward = float(reward) - 2.0 * info["reward_forward"]
        return self._seen(observation), reward, terminated, truncated, info | {"phase": self.phase}

    def _begin(self, phase: int) -> None:
        """Draws, always in the same order, what holds in a phase, and takes over what is to change."""
        self.phase = phase
        rng = np.random.default_rng([self._seed, phase])
        actions: Any = self.env.action_space
        observations: Any = self.env.observation_space
        motors = _mixed(rng, actions.shape[0])
        sensors = _mixed(rng, observations.shape[0])
        friction, gravity = 10.0 ** rng.uniform(-1.3, 0.7), rng.uniform(0.5, 1.5)

        def changed(name: str) -> bool:
            return phase > 0 and name in self._changes

        self._motors = motors if changed("motors") else _unmixed(actions.shape[0])
        self._sensors = sensors if changed("sensors") else _unmixed(observations.shape[0])
        self._backward = changed("direction") and phase % 2 == 1
        sliding = friction if changed("friction") else 1.0
        self._model.geom_friction[:] = self._friction * [sliding, 1.0, 1.0]
        self._model.opt.gravity[:] = self._gravity * (gravity if changed("gravity") else 1.0)

    def _seen(self, observation: np.ndarray) -> np.ndarray:
        order, signs = self._sensors
        return (observation[order] * signs).astype(observation.dtype)


def _mixed(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Another order, and signs."""
    return rng.permutation(size), rng.choice([-1.0, 1.0], size)


def _unmixed(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(size), np.ones(size)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
