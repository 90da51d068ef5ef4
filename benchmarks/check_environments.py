"""What `check-env` says of the environments that others have written: no grave finding is expected.

    pip install '.[box2d,mujoco,minigrid,atari]'
    python benchmarks/check_environments.py [--steps N] [ID ...]

Without ids: every environment of Gymnasium's own registry that can be made here, the newest version of each,
with some of MiniGrid and Atari. Prints a Markdown table: what is wrong, and what is worth a note.
"""

import argparse
import sys
from pathlib import Path

from rlweights.backend import configure

configure()

import gymnasium as gym

from rlweights.errors import ConfigError
from rlweights.running.building.singles import Singles
from rlweights.running.building.user_code import UserCode
from rlweights.running.config import agent_file, extras
from rlweights.running.environment_check import check

OTHERS = (
    *("MiniGrid-Empty-8x8-v0", "MiniGrid-DoorKey-5x5-v0", "MiniGrid-MemoryS7-v0", "MiniGrid-FourRooms-v0"),
    *("BabyAI-GoToObj-v0", "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/MontezumaRevenge-v5"),
)


def own_ids() -> list[str]:
    """The newest version of each environment that Gymnasium itself brings."""
    newest: dict[str, gym.envs.registration.EnvSpec] = {}
    for spec in gym.registry.values():
        entry = spec.entry_point
        own = isinstance(entry, str) and entry.startswith("gymnasium.envs") and not spec.namespace
        if own and (spec.version or 0) >= (newest[spec.name].version or 0 if spec.name in newest else 0):
            newest[spec.name] = spec
    return [spec.id for spec in newest.values() if spec.id != "GymV21Environment-v0"]


def row(name: str, steps: int) -> str | None:
    """The row of one environment; None if it cannot be made here."""
    agent = agent_file.for_environment(name).agent
    singles = Singles(agent.environment, UserCode(name, Path()))
    try:
        found = check(agent, lambda: singles.guarded(singles.make), steps)
    except (ConfigError, extras.NotInstalled) as error:
        print(f"{name}: left out: {error}", file=sys.stderr)
        return None
    kinds = {"cause": [], "note": []}
    for each in found.findings:
        kinds[each.kind].append(each.symptom)
    return f"| `{name}` | {', '.join(kinds['cause'])} | {', '.join(kinds['note'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--steps", type=int, default=500)
    arguments = parser.parse_args()
    print("| environment | wrong | notes |\n|---|---|---|")
    for name in arguments.ids or [*own_ids(), *OTHERS]:
        line = row(name, arguments.steps)
        if line is not None:
            print(line, flush=True)


if __name__ == "__main__":
    main()
