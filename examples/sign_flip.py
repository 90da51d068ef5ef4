"""Your own rule in a dozen lines, its test, and a look at what it does.

Beside an agent file the same class trains an agent:

    [[interventions]]
    rule = "sign_flip.py:SignFlip"
    on = "policy/.*/kernel"
    fraction = 0.001
"""

import keras
import numpy as np
from keras import ops

import rlweights as rw
from rlweights.testing import check
from rlweights.weights import prng


class SignFlip(rw.Intervention):
    """Flips the sign of a random fraction of the weights.

    Args:
        fraction: Probability that a weight flips: a number in [0, 1], a schedule, or a `Feedback`.
        **kwargs: See `Intervention`.

    Metrics: `flipped`, the share of weights that were flipped.
    """

    metric_names = ("flipped",)

    def __init__(self, fraction, **kwargs):
        super().__init__(**kwargs)
        self.fraction = self.strength(fraction, "fraction", minimum=0.0)

    def update(self, weight, step):
        """Returns the weight with some signs flipped."""
        drawn = prng.uniform(weight.shape, self.seed, f"{self.name}/{weight.path}", step)
        return ops.where(drawn < self.fraction(step), -weight, weight)

    def observe(self, before, after, step):
        """Measures the share of flipped weights."""
        flipped = [ops.mean(ops.cast(old != new, "float32")) for old, new in zip(before, after, strict=True)]
        return {"flipped": ops.mean(ops.stack(flipped))}


def main():
    check(SignFlip(0.1))  # eager = graph = XLA, one trace, saves and loads, finite metrics

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(100, use_bias=False, name="wide")])
    before = model.get_weights()[0]
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [SignFlip(0.25)])
    model.compile(optimizer, "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 100)), batch_size=8, verbose=0)
    after = model.get_weights()[0]

    share = float(optimizer.metrics()["sign_flip/flipped"])
    print(f"{share:.1%} of the weights were flipped")
    assert np.array_equal(np.abs(before), np.abs(after))
    assert np.isclose(np.mean(before != after), share)
    assert 0.15 < share < 0.35


if __name__ == "__main__":
    main()
