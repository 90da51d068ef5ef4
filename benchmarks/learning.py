"""Measures what every shipped agent reaches.

    python benchmarks/learning.py [AGENT ...]

Trains each agent once per seed of its `expect` table, on its whole budget, and evaluates the final weights
in 100 greedy episodes of the real environment (evaluation seed 10,000). Prints a Markdown table with every
seed, the mean and a 95 % bootstrap interval of the mean over seeds.
"""

import sys
import time

import numpy as np

from rlweights.startup import settle

settle()

from rlweights import config  # noqa: E402
from rlweights.assembly import Assembly  # noqa: E402
from rlweights.evaluation import evaluate  # noqa: E402
from rlweights.intervals import bootstrap_interval  # noqa: E402
from rlweights.loops import loop_of  # noqa: E402
from rlweights.trainer import acting  # noqa: E402

EPISODES = 100


def measure(name: str, seed: int) -> tuple[float, float]:
    """Trains one agent with one seed; returns its mean return and the seconds that training took."""
    path = config.find(name)
    agent = config.load(path, [f"seed={seed}"])
    assembly = Assembly(agent, str(path), path.parent)
    loop = loop_of(assembly)
    started, done = time.monotonic(), 0
    loop.boundary(0, 0)
    while done < agent.total_iterations:
        done += len(loop.advance(done, agent.total_iterations - done))
    seconds = time.monotonic() - started
    loop.close()
    envs = assembly.make_envs(20, evaluation=True)
    with assembly.optimizer.evaluation():
        result = evaluate(acting(assembly), envs, assembly.distribution, EPISODES, seed=10_000)
    envs.close()
    return result.mean, seconds


def shown(score: float) -> str:
    """A return with as many digits as say something: some environments pay 1 at most, others thousands."""
    return f"{score:.1f}" if abs(score) >= 2 else f"{score:.3f}"


def main() -> None:
    names = sys.argv[1:] or list(config.shipped())
    print("| agent | steps | expected | mean over seeds [95 % interval] | each seed | seconds a run |")
    print("|---|---|---|---|---|---|")
    for name in names:
        agent = config.load(config.find(name))
        assert agent.expect is not None
        results = [measure(name, seed) for seed in agent.expect.seeds]
        scores = np.array([mean for mean, _ in results])
        interval = bootstrap_interval(scores, np.mean)
        seconds = np.median([duration for _, duration in results])
        print(
            f"| `{name}` | {agent.total_iterations * agent.steps_per_iteration:,} "
            f"| {agent.expect.mean_reward:g} "
            f"| {shown(scores.mean())} [{shown(float(interval.low))}, {shown(float(interval.high))}] "
            f"| {', '.join(map(shown, scores))} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
