"""Makes the pretrained agents that come with the package, in `pretrained/`.

    python benchmarks/pretrain.py cartpole chain --seed 0

Each is what a run leaves, without what only its training needs: `agent.toml`, `best/weights.safetensors`
(with the return of its best evaluation) and `run.json` (versions, commit, machine, and this command). An
agent that does not reach what its file expects is refused, and so are weights of more than 200 KB.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from rlweights.backend import configure

ROOT = Path(__file__).parent.parent
KEPT = ("agent.toml", "best/weights.safetensors", "run.json")
LARGEST = 200_000
"""Bytes of a file of weights."""


def main(arguments: list[str] | None = None, target: Path = ROOT / "pretrained") -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("agents", nargs="+", help="shipped agents")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for tests of this file"
    )
    options = parser.parse_args(arguments)
    configure()
    return max(made(name, options.seed, options.set, target) for name in options.agents)


def made(name: str, seed: int, changes: list[str], target: Path) -> int:
    from rlweights.running.recipe import Recipe
    from rlweights.running.trained import TrainedAgent

    recipe = Recipe(name, [f"seed={seed}", "evaluation.film_frames=0", *changes])
    with tempfile.TemporaryDirectory() as runs:
        outcome = recipe.begin(Path(runs), quiet=True)
        agent = TrainedAgent(outcome.folder)
        mean = agent.evaluate(100, seed=1_000).mean  # other episodes than those that chose the weights
        size = agent.weights.stat().st_size
        expected = recipe.agent.expect.mean_reward if recipe.agent.expect else float("-inf")
        if mean < expected or size > LARGEST:
            print(f"{name}: {mean:.1f} of {expected:g} expected, {size:,} bytes: not kept", file=sys.stderr)
            return 1
        shutil.rmtree(target / name, ignore_errors=True)
        for each in KEPT:
            (target / name / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(outcome.folder / each, target / name / each)
    print(f"{name}: mean return {mean:.1f} of 100 episodes, {size:,} bytes, {target / name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
