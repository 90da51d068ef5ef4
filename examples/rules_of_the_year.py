"""Three rules from new papers, each in under fifteen lines, and the battery that every rule must pass.

python examples/rules_of_the_year.py
"""

import keras
import numpy as np
from keras import ops

import rlweights as rw
from rlweights.testing import check


class FrobeniusIsometry(rw.Intervention):
    """Now and then replaces each kernel by the isometry that is nearest to it (FIRE, without its scale).

    Han et al., "FIRE: Frobenius-Isometry Reinitialization for Balancing the Stability-Plasticity Tradeoff",
    2026, https://arxiv.org/abs/2602.08040.
    """

    default_on, placement = rw.kernels(), "after_iteration"

    def __init__(self, every=10, rounds=10, **kwargs):
        super().__init__(**kwargs)
        self.every, self.rounds = every, rounds  # what is not due is not computed

    def update(self, weight, step):
        """Returns the isometry."""
        x = ops.reshape(weight, (-1, weight.shape[-1]))
        x = x / (ops.norm(x) + 1e-6)
        for _ in range(self.rounds):  # Newton and Schulz
            x = 1.5 * x - ops.matmul(x, ops.matmul(ops.transpose(x), 0.5 * x))
        return ops.reshape(x, weight.shape)


class IsometryDecay(rw.Intervention):
    """Pulls kernels a little towards an isometry, decoupled from the gradient, as weight decay is (AdamO).

    "Preserving Plasticity in Continual Learning via Dynamical Isometry", 2026, https://arxiv.org/abs/2606.09762.
    """

    default_on = rw.kernels()

    def __init__(self, rate=1e-2, **kwargs):
        super().__init__(**kwargs)
        self.rate = self.strength(rate, "rate", minimum=0.0)

    def delta(self, weight, step):
        """Returns the way towards W' W = 1."""
        x = ops.reshape(weight, (-1, weight.shape[-1]))
        away = ops.matmul(x, ops.matmul(ops.transpose(x), x) - ops.eye(weight.shape[-1], dtype=weight.dtype))
        return -ops.cast(self.rate(step), weight.dtype) * ops.reshape(away, weight.shape)


class CautiousDecay(rw.Intervention):
    """Decays only the weights that the gradient pushes towards zero, too.

    Chen et al., "Cautious Weight Decay", 2025, https://arxiv.org/abs/2510.12402; with the gradient's sign,
    where the paper has that of the optimizer's step.
    """

    def __init__(self, rate=1e-2, **kwargs):
        super().__init__(**kwargs)
        self.rate = self.strength(rate, "rate", minimum=0.0)

    def build(self, variables):
        """Optimizers that have no gradient of each step are refused at once."""
        self.gradient(variables[0])

    def delta(self, weight, step):
        """Returns the decay."""
        agreeing = ops.sign(self.gradient(weight)) * ops.sign(weight) >= 0
        return -ops.cast(self.rate(step), weight.dtype) * ops.where(agreeing, weight, ops.zeros_like(weight))


def main():
    for rule in (FrobeniusIsometry(every=2), IsometryDecay(), CautiousDecay()):
        check(rule)  # eager = graph = XLA, one trace, saves and loads, finite metrics
        print(f"{type(rule).__name__} passes the battery")

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, use_bias=False, name="hidden")])
    model.compile(rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [IsometryDecay(0.2)]), "mse")
    model.fit(np.ones((256, 4)), np.ones((256, 8)), batch_size=2, verbose=0)
    values = np.linalg.svd(model.get_weights()[0], compute_uv=False)
    print(f"singular values: {values.round(3)}")
    assert np.allclose(values, 1.0, atol=0.02)


if __name__ == "__main__":
    main()
