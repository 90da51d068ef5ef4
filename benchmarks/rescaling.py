"""Learning curves with and without rescaled actions, in boxes of different units.

    python benchmarks/rescaling.py [CASE ...] [--seeds N ...] [--scale S]

Each case is trained twice per seed, `environment.rescale_actions` off and on, and everything else alike.
Prints a Markdown table: the mean return of the episodes that ended in each quarter of the budget, and of 20
greedy episodes at the end, means over seeds with the lowest and the highest seed. `--scale` multiplies the
budgets.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from rlweights.backend import configure

configure()

from rlweights.errors import guarded
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file


class Target(gym.Env):
    """Ten steps, each of which pays 1 less the distance to a target, in ranges of the box: 10 at best."""

    def __init__(self, low: Sequence[float], high: Sequence[float], target: Sequence[float]):
        self.observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self._target, self._span = np.array(target), np.array(high) - np.array(low)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self._step = 0
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        """Pays by the distance."""
        self._step += 1
        reward = 1.0 - float(np.mean(np.abs(action - self._target) / self._span))
        return np.ones(1, np.float32), reward, self._step >= 10, False, {}


gym.register("rescaling/Target-v0", Target)


def target(low: Sequence[float], high: Sequence[float], place: Sequence[float]) -> dict[str, Any]:
    """An agent in a `Target` environment, with general defaults but short rollouts."""
    return {
        "environment": {
            "id": "rescaling/Target-v0",
            "kwargs": {"low": list(low), "high": list(high), "target": list(place)},
        },
        "algorithm": {"name": "ppo", "n_steps": 64, "batch_size": 64, "learning_rate": 1e-3},
        "budget": {"total_timesteps": 20_480},
    }


def shipped(name: str, steps: int, **environment: Any) -> dict[str, Any]:
    """A shipped agent's settings, for fewer steps."""
    data = agent_file.load(agent_file.find(name)).model_dump(by_alias=True, exclude_none=True)
    data["environment"] |= environment
    del data["expect"]
    return data | {"budget": {"total_timesteps": steps}, "interventions": []}


CASES = {
    "valve, [0, 100], 60 is right": lambda: target([0], [100], [60]),
    "[5, 35], 25 is right": lambda: target([5], [35], [25]),
    "[-0.01, 0.01] x [-1000, 1000]": lambda: target([-0.01, -1000], [0.01, 1000], [0.004, 400]),
    "Pendulum-v1": lambda: shipped("pendulum", 61_440),
    "LunarLander-v3, continuous": lambda: shipped("lunar_lander", 200_000, kwargs={"continuous": True}),
}
"""What is trained: agent files as data, by what the row says."""


def curve(data: dict[str, Any], rescale: bool, seed: int, scale: float) -> list[float]:
    """Trains once; returns the mean return of each quarter, and that of the final greedy episodes."""
    environment = data["environment"] | {"rescale_actions": rescale}
    steps = int(data["budget"]["total_timesteps"] * scale)
    found = {**data, "environment": environment, "seed": seed, "budget": {"total_timesteps": steps}}
    assembly = Assembly(agent_file.parse(found, "rescaling"), "rescaling")
    total = assembly.agent.total_iterations
    loop = assembly.make_loop()
    loop.begin(0, 0)
    returns, counts, done = np.zeros(4), np.zeros(4), 0
    while done < total:
        for _, episodes in loop.advance(done, total - done):
            quarter = min(3, 4 * done // total)
            returns[quarter] += episodes.total_return
            counts[quarter] += episodes.count
            done += 1
    loop.close()
    envs = assembly.environments.vector(10, evaluation=True)
    with assembly.optimizer.evaluation():
        result = assembly.evaluate(assembly.acting(), envs, 20, 10_000, deterministic=True)
    envs.close()
    return [*(returns / np.maximum(counts, 1)).tolist(), result.mean]


def row(name: str, rescale: bool, seeds: Sequence[int], scale: float) -> str:
    """Trains a case with all seeds; returns its row of the table."""
    curves = np.array([curve(CASES[name](), rescale, seed, scale) for seed in seeds])
    quarters = " | ".join(f"{mean:.1f}" for mean in curves.mean(0)[:4])
    final = curves[:, 4]
    spread = f"{final.mean():.1f} [{final.min():.1f}, {final.max():.1f}]"
    return f"| {name} | {'yes' if rescale else 'no'} | {quarters} | {spread} |"


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description="Learning curves with and without rescaled actions.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="words of their names; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--scale", type=float, default=1.0)
    chosen = parser.parse_args()
    names = [name for name in CASES if not chosen.cases or any(word in name for word in chosen.cases)]
    if not names:
        parser.error(f"no such case: {', '.join(chosen.cases)}; there are: {'; '.join(CASES)}")
    print("| actions | rescaled | 1st quarter | 2nd | 3rd | 4th | greedy, at the end |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        for rescale in (False, True):
            print(row(name, rescale, chosen.seeds, chosen.scale), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
