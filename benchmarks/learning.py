"""Measures what every shipped agent reaches, as it is shipped or varied.

    python benchmarks/learning.py [AGENT ...] [--set KEY=VALUE ...] [--seeds N ...] [--episodes N]

Trains each agent once per seed of its `expect` table, on its whole budget, and evaluates the final weights
in 100 episodes of the real environment (evaluation seed 10,000), greedy ones unless the agent file says
otherwise. Prints a Markdown table with every seed, the mean and a 95 % bootstrap interval of the mean over
seeds. What `--set` changes, as it does for `python -m rlweights.train`, is in the row.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from rlweights.backend import configure

configure()

from rlweights import errors
from rlweights.errors import guarded
from rlweights.learning.intervals import bootstrap_interval
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file


def measure(name: str, seed: int, overrides: Sequence[str], episodes: int) -> tuple[float, float]:
    """Trains one agent with one seed; returns its mean return and the seconds that training took."""
    path = agent_file.find(name)
    agent = agent_file.load(path, [*overrides, f"seed={seed}"])
    assembly = Assembly(agent, str(path), path.parent)
    loop = assembly.make_loop()
    started, done = time.monotonic(), 0
    loop.begin(0, 0)
    while done < agent.total_iterations:
        done += len(loop.advance(done, agent.total_iterations - done))
    seconds = time.monotonic() - started
    loop.close()
    envs = assembly.environments.vector(min(20, episodes), evaluation=True)
    with assembly.optimizer.evaluation():
        result = assembly.evaluate(assembly.acting(), envs, episodes, 10_000)
    envs.close()
    return result.mean, seconds


def shown(score: float) -> str:
    """A return with as many digits as say something: some environments pay 1 at most, others thousands."""
    return f"{score:.1f}" if abs(score) >= 2 else f"{score:.3f}"


def row(name: str, overrides: Sequence[str], seeds: Sequence[int] | None, episodes: int) -> str:
    """Trains one agent with all seeds; returns its row of the table."""
    agent = agent_file.load(agent_file.find(name), overrides)
    if agent.expect is None and seeds is None:
        raise errors.ConfigError(f"{name}: expect is missing, whose seeds are trained; give --seeds")
    seeds = seeds or agent.expect.seeds
    expected = f"{agent.expect.mean_reward:g}" if agent.expect else "-"
    results = [measure(name, seed, overrides, episodes) for seed in seeds]
    scores = np.array([mean for mean, _ in results])
    interval = bootstrap_interval(scores, np.mean)
    seconds = np.median([duration for _, duration in results])
    varied = "".join(f" `{text}`" for text in overrides).replace("|", r"\|")
    return (
        f"| `{name}`{varied} | {agent.total_iterations * agent.steps_per_iteration:,} "
        f"| {expected} "
        f"| {shown(scores.mean())} [{shown(float(interval.low))}, {shown(float(interval.high))}] "
        f"| {', '.join(map(shown, scores))} | {seconds:.0f} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="all of them if none is named")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the agent file's")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="of each evaluation")
    options = parser.parse_args(arguments)
    if options.episodes < 1:
        parser.error(f"argument --episodes: takes 1 or more, not {options.episodes}")

    def table() -> int:
        print("| agent | steps | expected | mean over seeds [95 % interval] | each seed | seconds a run |")
        print("|---|---|---|---|---|---|")
        for name in options.agents or agent_file.shipped():
            print(row(name, options.overrides, options.seeds, options.episodes), flush=True)
        return 0

    return guarded(table)


if __name__ == "__main__":
    raise SystemExit(main())
