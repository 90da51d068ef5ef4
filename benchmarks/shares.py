"""Where the time of a Gymnasium training loop goes: environment, acting, learning, and the rest.

    python benchmarks/shares.py [--env-steps 50000] [AGENT ...]

Trains shipped agents with a clock around each call of the environments' `step`, of the policy and of the
compiled update. The rest is Python between them: samples, bookkeeping, episode statistics.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

from rlweights.backend import configure

configure()

from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file

AGENTS = ("cartpole", "half_cheetah")
PARTS = ("environment", "acting", "learning")


class Clock:
    """Adds up the seconds spent in some functions, by a name for each."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function with a clock around it."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - started

        return timed


def measure(name: str, env_steps: int) -> tuple[float, dict[str, float]]:
    """Returns environment steps per second after a warm-up, and the share of each part."""
    path = agent_file.find(name)
    agent = agent_file.load(path, ["budget.total_timesteps=1_000_000_000"])
    loop, clock = Assembly(agent, str(path), path.parent).make_loop(), Clock()
    loop.envs.step = clock.around("environment", loop.envs.step)
    loop.programs.policy = clock.around("acting", loop.programs.policy)
    loop.programs.begin = clock.around("acting", loop.programs.begin)
    loop.programs.learn = clock.around("learning", loop.programs.learn)
    loop.begin(0, 0)
    warm_up, count = 3, max(1, env_steps // agent.steps_per_iteration)
    for iteration in range(warm_up):
        loop.advance(iteration, 1)
    clock.seconds = dict.fromkeys(PARTS, 0.0)
    started = time.perf_counter()
    for iteration in range(warm_up, warm_up + count):
        loop.advance(iteration, 1)
    elapsed = time.perf_counter() - started
    loop.close()
    return count * agent.steps_per_iteration / elapsed, {k: v / elapsed for k, v in clock.seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("agents", nargs="*", default=AGENTS, metavar="AGENT")
    parser.add_argument("--env-steps", type=int, default=50_000)
    arguments = parser.parse_args()
    print(f"| agent | env steps/s | {' | '.join(PARTS)} | rest |\n|---|---|---|---|---|---|")
    for name in arguments.agents:
        rate, shares = measure(name, arguments.env_steps)
        cells = [f"{share:.0%}" for share in (*shares.values(), 1.0 - sum(shares.values()))]
        print(f"| `{name}` | {rate:,.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
