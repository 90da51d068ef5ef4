"""The protocol of an environment as a TensorFlow function, and the episode bookkeeping around it.

An environment here is a set of pure functions over a batch of states: what Gymnasium keeps inside an
object (the state, the random generator, the step count) is an argument and a result. That is what lets a
rollout of many environments, the policy and the learner become one XLA program.

Layers, from the physics outwards:

* `Environment`: `reset`, `step` and `observe`, the methods that an environment defines.
* `VectorState`, `reset_all`, `step_all`: N episodes side by side, with time limits, returns and
  autoreset in the step that ends an episode (Gymnasium's ``SAME_STEP``).
* `final_observations`: the last observation of each episode, recomputed after a rollout.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import gymnasium as gym
import tensorflow as tf

from rlweights.weights import prng
from rlweights.weights.arrays import Scalar, Tensor


@dataclasses.dataclass(frozen=True)
class Draw:
    """Where an environment's random numbers come from: a pure function of seed, stream and clock.

    Attributes:
        seed: The seed of the run; integer or scalar integer tensor.
        clock: Vector steps done so far in the whole run, int32 scalar. It is [N] where steps of different
            times are recomputed in one batch; such a `Draw` can tell the time but draws nothing.
        stream: Name of the random stream; streams are independent of each other.
    """

    seed: Scalar
    clock: Tensor
    stream: str = "environment"

    def named(self, name: str) -> "Draw":
        """Returns a `Draw` of the same time whose numbers are independent of this one's."""
        return dataclasses.replace(self, stream=f"{self.stream}/{name}")

    def uniform(self, shape: Sequence[int], low: Scalar = 0.0, high: Scalar = 1.0, name: str = "") -> Tensor:
        """Draws float32 numbers uniformly from [low, high); another `name` draws others."""
        self._require_one_time()
        return prng.uniform(shape, self.seed, f"{self.stream}/{name}", self.clock, low, high)

    def normal(self, shape: Sequence[int], name: str = "") -> Tensor:
        """Draws standard normal float32 numbers; another `name` draws others."""
        self._require_one_time()
        return prng.normal(shape, self.seed, f"{self.stream}/{name}", self.clock)

    def _require_one_time(self) -> None:
        if tf.convert_to_tensor(self.clock).shape.rank != 0:
            raise ValueError(
                f"{self.stream}: random numbers were asked for while steps of different times are "
                "recomputed in one batch. An environment whose step draws must say "
                "`deterministic = False`."
            )


class Environment:
    """Base class of environments that are TensorFlow functions.

    Every method is pure, works elementwise over the N environments of a batch, has static shapes and
    compiles under XLA: it chooses with `tf.where`, never with Python's `if` on a tensor. Parameters of the
    physics are attributes set by the constructor and read by `step`, so that they can drift
    (`rlweights.learning.environments.drift`).

    Attributes:
        id: Gymnasium's id if the environment is the twin of one of Gymnasium's, else its name.
        max_episode_steps: The time limit; None means that only `terminated` ends an episode.
        deterministic: Whether `step` is a function of state, action and clock alone. False if it draws.
    """

    id: str
    max_episode_steps: int | None = None
    deterministic: bool = True

    @property
    def observation_space(self) -> gym.Space:
        """The space of one environment's observation."""
        raise NotImplementedError

    @property
    def action_space(self) -> gym.Space:
        """The space of one environment's action; actions arrive as int32 [N] or float32 [N, A]."""
        raise NotImplementedError

    def reset(self, num_envs: int, draw: Draw) -> Tensor:
        """Returns the states in which `num_envs` episodes begin: one tensor [N, S] of one dtype."""
        raise NotImplementedError

    def step(self, state: Tensor, action: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
        """Advances every environment by one step.

        Args:
            state: [N, S], as returned by `reset` or by the step before.
            action: int32 [N] if the action space is discrete, else float32 [N, A], not yet clipped.
            draw: Randomness, and the time: `draw.clock` is a scalar or [N].

        Returns:
            The next state [N, S], the reward float32 [N] and terminated bool [N]. Time limits, and what
            follows the end of an episode, are left to `step_all`.
        """
        raise NotImplementedError

    def observe(self, state: Tensor) -> Tensor:
        """Returns what the agent sees of `state` [N, S]: [N, ...] in the observation space."""
        return state

    def action_mask(self, state: Tensor) -> Tensor | None:
        """Returns which actions are allowed in `state` [N, S]: bool [N, P]; None where all always are.

        P is the number of actions, of a multi-discrete space that of all its parts, concatenated.
        """
        return None

    def phase(self, state: Tensor) -> Tensor | None:
        """Returns the phase that each episode belongs to, int32 [N]; None where tasks do not change.

        An episode has one phase from its beginning to its end, and phases never decrease: that is what the
        metrics of phases are made of (`rlweights.learning.phases`).
        """
        return None


class VectorState(NamedTuple):
    """N running episodes."""

    state: Tensor  # [N, S]
    elapsed: Tensor  # int32 [N], steps since the episode began
    episode_return: Tensor  # float32 [N], undiscounted rewards since the episode began


class StepOutcome(NamedTuple):
    """The result of one step. The episode's figures are final where it ended, running elsewhere."""

    reward: Tensor  # float32 [N]
    terminated: Tensor  # bool [N]
    truncated: Tensor  # bool [N], the time limit was reached, and the episode did not terminate
    episode_return: Tensor  # float32 [N], this step included
    episode_length: Tensor  # int32 [N], this step included


def reset_all(environment: Environment, num_envs: int, draw: Draw) -> VectorState:
    """Begins `num_envs` episodes."""
    return VectorState(
        state=environment.reset(num_envs, draw.named("start")),
        elapsed=tf.zeros([num_envs], tf.int32),
        episode_return=tf.zeros([num_envs], tf.float32),
    )


def step_all(
    environment: Environment, vector_state: VectorState, action: Tensor, draw: Draw
) -> tuple[VectorState, StepOutcome]:
    """Advances N episodes by one step and begins a new one wherever one ended.

    Args:
        environment: The environment.
        vector_state: The running episodes.
        action: int32 [N] or float32 [N, A].
        draw: Randomness of this step; its clock is a scalar, the number of vector steps done before.

    Returns:
        The running episodes after the step (fresh ones where an episode ended), and the `StepOutcome`. The
        last observation of an ended episode is not among them: see `final_observations`.
    """
    reached, reward, terminated = environment.step(vector_state.state, action, draw)
    length = vector_state.elapsed + 1
    episode_return = vector_state.episode_return + reward
    if environment.max_episode_steps is None:
        ended, truncated = terminated, tf.zeros_like(terminated)
    else:
        out_of_time = length >= environment.max_episode_steps
        ended, truncated = terminated | out_of_time, out_of_time & ~terminated

    # Whether anything ended decides only whether fresh states are drawn at all, never which: an
    # environment's numbers depend on the clock and its own index, not on what the others do.
    state = tf.cond(
        tf.reduce_any(ended),
        lambda: tf.where(ended[:, None], environment.reset(reached.shape[0], draw.named("reset")), reached),
        lambda: reached,
    )
    following = VectorState(
        state=state,
        elapsed=tf.where(ended, 0, length),
        episode_return=tf.where(ended, 0.0, episode_return),
    )
    return following, StepOutcome(reward, terminated, truncated, episode_return, length)


def final_observations(
    environment: Environment, states: Tensor, actions: Tensor, clocks: Tensor, draw: Draw | None = None
) -> Tensor:
    """Recomputes the observation that followed each step, before autoreset replaced it.

    A rollout that stores them as it goes pays dearly under XLA, which materializes them at every step.
    One batched step over the states and actions that the rollout stores anyway costs next to nothing.

    Args:
        environment: The environment.
        states: [T, N, S], the states before each step (`VectorState.state`).
        actions: [T, N, ...], the actions taken.
        clocks: int32 [T], the clock of each step.
        draw: The `Draw` that `step_all` was given, of any clock. Needed where `step` draws random numbers
            (`environment.deterministic` is False); the steps are then recomputed one by one.

    Returns:
        [T, N, ...]: where an episode ended at [t, n], its last observation; elsewhere the observation of
        the state before step t + 1.

    Raises:
        ValueError: If `step` draws random numbers and no `draw` was given.
    """
    steps, num_envs = states.shape[:2]
    clocks = tf.convert_to_tensor(clocks)
    if environment.deterministic:
        states, actions = (tf.reshape(x, [steps * num_envs, *x.shape[2:]]) for x in (states, actions))
        times = Draw(seed=0, clock=tf.repeat(clocks, num_envs))
        observations = environment.observe(environment.step(states, actions, times)[0])
        return tf.reshape(observations, [steps, num_envs, *observations.shape[1:]])
    if draw is None:
        raise ValueError(
            f"{environment.id} draws random numbers in `step`: `final_observations` needs the `draw` "
            "that `step_all` was given."
        )

    def observation(step: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        state, action, clock = step
        at = dataclasses.replace(draw, clock=clock)
        return environment.observe(environment.step(state, action, at)[0])

    like = environment.observe(states[0])
    signature = tf.TensorSpec(like.shape, like.dtype)
    return tf.map_fn(observation, (states, actions, clocks), fn_output_signature=signature)
