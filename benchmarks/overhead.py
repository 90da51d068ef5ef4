"""What looking costs: scalars, diagnostics and histograms at their default cadence against none of them.

    python benchmarks/overhead.py [--pairs 9] [--env-steps 100000]

Both contenders of a pair are whole training loops of the same compiled agent in one process, one right after
the other, in alternating order, so that a machine that drifts, drifts for both. Evaluations and checkpoints
are off in both: they are there to be used, not to be looked at. Prints, for each backend, the median ratio
of the times and the range of the pairs, for the time on the clock and for that of the processor, which a busy
machine disturbs less; what is published is below 1.05. Run nothing else meanwhile.
"""

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

from rlweights.backend import configure

configure()

from rlweights.running import trainer
from rlweights.running.building.assembly import Assembly
from rlweights.running.recipe import Recipe
from rlweights.running.records.console import Console
from rlweights.running.saving import run_folder
from rlweights.running.saving.run_state import by_path

AGENTS = {"gymnasium": "cartpole", "tensorflow": "cartpole_xla"}
OFF = 10**9


class Agent:
    """One agent, compiled once and trained again and again.

    Args:
        name: Of a shipped agent.
        env_steps: Of one training.
    """

    def __init__(self, name: str, env_steps: int):
        self.recipe = Recipe(
            name,
            {"budget.total_timesteps": env_steps, "evaluation.every": 0, "evaluation.final_episodes": 1}
            | {"evaluation.film_frames": 0, "checkpoint.every": 0},
        )
        self.assembly = Assembly(self.recipe.agent, name, self.recipe.folder)
        self.loop = self.assembly.make_loop()
        self.variables = by_path([*self.assembly.learner.variables, *self.loop.variables])
        self.initial = {path: v.numpy().copy() for path, v in self.variables.items()}
        self.inspection: trainer.Inspection | None = None

    def seconds(self, looking: bool) -> tuple[float, float]:
        """Trains from the beginning; returns the time from the first iteration to the end of the last one.

        On the clock, and of the processor.
        """
        for path, variable in self.variables.items():
            variable.assign(self.initial[path])
        off = {"logging.every": OFF, "logging.diagnostics_every": 0, "logging.histograms_every": 0}
        self.assembly.agent = self.recipe.changed({} if looking else off).agent
        with tempfile.TemporaryDirectory() as folder:
            run = run_folder.create(Path(folder), "overhead", self.assembly.agent, "overhead", ())
            with mock.patch.object(Assembly, "make_loop", return_value=self.loop):
                training = trainer.Trainer(self.assembly, Console(1, quiet=True, file=io.StringIO()))
            training._inspection = self.inspection  # it is compiled once in a run, which is not its price
            times: list[tuple[float, float]] = []
            advance = training._advance

            def timed(records) -> None:
                times.append((time.perf_counter(), time.process_time()))
                advance(records)
                times.append((time.perf_counter(), time.process_time()))

            training._advance = timed  # pyright: ignore[reportAttributeAccessIssue]
            training.run(run)
            self.inspection = training._inspection
            training._evaluator.close()
        (clock, processor), (clock_end, processor_end) = times[0], times[-1]
        return clock_end - clock, processor_end - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--env-steps", type=int, default=100_000)
    arguments = parser.parse_args()
    print("| backend | seconds of | looking | not looking | ratio, median of pairs | range |")
    print("|---|---|---|---|---|---|")
    for backend, name in AGENTS.items():
        agent = Agent(name, arguments.env_steps)
        agent.seconds(True)  # compiles what looks
        agent.seconds(False)
        pairs = []
        for number in range(arguments.pairs):
            order = (True, False) if number % 2 else (False, True)
            seconds = {looking: agent.seconds(looking) for looking in order}
            pairs.append((seconds[True], seconds[False]))
        for kind, what in enumerate(("the clock", "the processor")):
            on, off = ([each[contender][kind] for each in pairs] for contender in (0, 1))
            ratios = [a / b for a, b in zip(on, off, strict=True)]
            print(
                f"| {backend} | {what} | {statistics.median(on):.2f} | {statistics.median(off):.2f} "
                f"| {statistics.median(ratios):.3f} | {min(ratios):.3f} to {max(ratios):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
