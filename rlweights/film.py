"""An agent to look at: episodes in the rendered environment, and a short film of one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.assembly import Assembly
from rlweights.spaces import action_decoder, one_batch

LARGEST = 320
"""Width and height of a film's frames at most: what TensorBoard shows, and what an event file should hold."""


@dataclass(frozen=True)
class Film:
    """Frames [H, W, 3] uint8 of one episode, how many of them are a second, and what it returned."""

    frames: list[np.ndarray]
    fps: float
    total_return: float


def greedy(assembly: Assembly, policy: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], Any]:
    """Returns what acts in one environment: from an observation to the most likely action."""
    decode = action_decoder(assembly.action_space)

    def act(observation: Any) -> Any:
        parameters = policy(assembly.encoder.encode(one_batch(observation)))
        return decode(assembly.distribution.mode_numpy(parameters))[0]

    return act


def play(env: gym.Env, act: Callable[[Any], Any], seed: int, look: Callable[[], Any]) -> float:
    """Plays one episode and returns its return; calls `look` at every state, the last one included."""
    observation, _ = env.reset(seed=seed)
    total, ended = 0.0, False
    while not ended:
        look()
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total += float(reward)
        ended = terminated or truncated
    look()
    return total


def film(env: gym.Env, act: Callable[[Any], Any], seed: int, frames: int) -> Film:
    """Films one episode of an environment that renders into frames.

    Args:
        env: Made with `render_mode="rgb_array"`; it is not closed.
        act: From an observation to an action.
        seed: Seed of the episode.
        frames: Frames at most, 2 or more. A longer episode is shown at its own speed with fewer frames a
            second: every second one, every fourth one, ..., and how it ended.
    """
    kept: list[np.ndarray] = []
    state, every = 0, 1

    def look() -> None:
        nonlocal state, every
        if state % every == 0:
            if len(kept) >= frames - 1:
                del kept[1::2]
                every *= 2
            if state % every == 0:
                kept.append(_frame(env))
        state += 1

    total = play(env, act, seed, look)
    if (state - 1) % every:
        kept.append(_frame(env))  # how it ended
    return Film(kept, float(env.metadata.get("render_fps", 30)) / every, total)


def _frame(env: gym.Env) -> np.ndarray:
    """What the environment shows now, thinned out to at most LARGEST in width and height."""
    frame = np.asarray(env.render())
    if frame.ndim != 3 or frame.shape[-1] != 3:
        raise ValueError(f"render() returned shape {frame.shape} and no picture")
    every = math.ceil(max(frame.shape[:2]) / LARGEST)
    return np.ascontiguousarray(frame[::every, ::every], np.uint8)
