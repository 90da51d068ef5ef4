"""What rules cost a network of many layers in `model.fit`: a step, compiling it, and memory.

    python benchmarks/many_weights.py [--layers 50 100] [--repetitions 5]

The network is a chain of dense layers of 32 units, each with kernel and bias, trained by Adam on batches of
32. All variants of a size are fitted in turn, epoch by epoch, in one process each: bare Adam, the wrapper
without rules, `Clipping(1.0)` and `Noise(0.01)`, with the defaults of `InterventionOptimizer`. Printed are
the seconds of an epoch of 256 steps and its ratio to the bare one (the median over repetitions, which are
interleaved, so that a drift of the machine hits all alike), the seconds of the first epoch, which compiles,
and the memory by which one epoch raises the peak with a model of 200 MB. Run it when the machine is idle.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

VARIANTS = ("bare", "wrapper", "clipping", "noise")
UNITS, BATCH, STEPS = 32, 32, 256


def fitted(variant: str, layers: int, units: int, xla: bool) -> tuple[Any, Any]:
    """Makes a network and the data that it is fitted to."""
    from rlweights.backend import configure

    configure()
    import keras
    import numpy as np

    import rlweights as rw

    keras.utils.set_random_seed(0)
    chain = [keras.layers.Dense(units, "tanh", name=f"layer_{i}") for i in range(layers)]
    model = keras.Sequential([keras.Input((units,)), *chain], name="chain")
    rules = {"clipping": lambda: [rw.Clipping(1.0)], "noise": lambda: [rw.Noise(0.01)]}.get(variant, list)()
    adam = keras.optimizers.Adam(1e-3)
    model.compile(
        adam if variant == "bare" else rw.InterventionOptimizer(adam, rules), "mse", jit_compile=xla
    )
    x = np.random.default_rng(0).normal(size=(BATCH * STEPS, units)).astype(np.float32)
    return model, x


def child(variant: str, layers: int, units: int, xla: bool) -> None:
    """Fits an epoch for each line of standard input, and prints its seconds and the peak of memory, in MB."""
    model, x = fitted(variant, layers, units, xla)
    import rlweights as rw

    callbacks = [] if variant in ("bare", "wrapper") else [rw.WeightMonitor()]
    for _ in sys.stdin:
        started = time.perf_counter()
        model.fit(x, x, batch_size=BATCH, verbose=0, callbacks=callbacks)
        seconds = time.perf_counter() - started
        print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)


class Contender:
    """A process that fits one variant, an epoch at a time."""

    def __init__(self, variant: str, layers: int, units: int, xla: bool):
        where = [sys.executable, __file__, "--child", variant, str(layers), str(units), str(int(xla))]
        self._cache = tempfile.TemporaryDirectory()  # programs that were compiled before would be found there
        self._process = subprocess.Popen(
            where,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": self._cache.name},
        )

    def epoch(self) -> tuple[float, float]:
        """Fits one more epoch and returns its seconds, and the peak of memory in MB."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("\n")
        stdin.flush()
        seconds, peak = json.loads(stdout.readline())
        return seconds, peak

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()
        self._cache.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[50, 100])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        variant, layers, units, xla = arguments.child
        child(variant, int(layers), int(units), bool(int(xla)))
        return
    for layers in arguments.layers:
        for xla in (True, False):
            contenders = {each: Contender(each, layers, UNITS, xla) for each in VARIANTS}
            firsts = {name: each.epoch()[0] for name, each in contenders.items()}
            times: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(arguments.repetitions + 1):
                for name, each in contenders.items():
                    times[name].append(each.epoch()[0])
            for each in contenders.values():
                each.close()
            print(f"\n### {layers} layers, {'XLA' if xla else 'graph'}\n")
            print("| | seconds of an epoch | over bare | range | first epoch, s | over bare |")
            print("|---|---|---|---|---|---|")
            for name, all_seconds in times.items():
                seconds = all_seconds[1:]
                ratios = [a / b for a, b in zip(seconds, times["bare"][1:], strict=True)]
                print(
                    f"| {name} | {statistics.median(seconds):.3f} | {statistics.median(ratios):.2f} "
                    f"| {min(ratios):.2f} to {max(ratios):.2f} "
                    f"| {firsts[name]:.1f} | {firsts[name] / firsts['bare']:.2f} |",
                    flush=True,
                )
    print("\n### Peak of memory, 13 layers of 2,000 units: 200 MB of weights\n")
    print("| | MB | more than bare |")
    print("|---|---|---|")
    peaks = {}
    for name in VARIANTS[:3]:
        contender = Contender(name, 13, 2_000, False)
        peaks[name] = contender.epoch()[1]
        contender.close()
        print(f"| {name} | {peaks[name]:,.0f} | {peaks[name] - peaks['bare']:+,.0f} |", flush=True)


if __name__ == "__main__":
    main()
