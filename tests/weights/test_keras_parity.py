"""`Projection` is Keras' own constraint, bit for bit, wherever Keras applies constraints too."""

import functools

import keras
import pytest
from keras import constraints

from rlweights.weights.interventions import Clipping, Projection
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import kind
from support.keras_models import MODES, assert_same, data, small_model, train_step, weights

CONSTRAINTS = {
    "max_norm": lambda: constraints.MaxNorm(0.5),
    "max_norm_by_output": lambda: constraints.MaxNorm(0.5, axis=1),
    "min_max_norm": lambda: constraints.MinMaxNorm(0.4, 0.6, rate=0.5),
    "non_negative": constraints.NonNeg,
    "unit_norm": constraints.UnitNorm,
    "unit_norm_of_all": lambda: constraints.UnitNorm(axis=[0, 1]),
}


def sgd():
    return keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True)


def trained(model, optimizer, mode):
    step = train_step(model, optimizer, mode)
    return [(step(*data(seed=i)).numpy(), weights(model)) for i in range(4)]


@functools.cache
def unconstrained(mode):
    return trained(small_model(), sgd(), mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_projection_is_the_kernel_constraint(name, mode):
    constraint = CONSTRAINTS[name]()
    expected = trained(small_model(kernel_constraint=constraint), sgd(), mode)
    optimizer = InterventionOptimizer(sgd(), [Projection(constraint, on=kind("kernel"))])
    assert_same(expected, trained(small_model(), optimizer, mode))
    with pytest.raises(AssertionError):  # the constraint did something
        assert_same(expected, unconstrained(mode))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_projections_are_kernel_and_bias_constraints_in_fit(jit_compile):
    kernels, biases = constraints.MaxNorm(0.5), constraints.NonNeg()

    def fit(model, optimizer):
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        history = model.fit(*data(), batch_size=4, epochs=3, shuffle=False, verbose=0).history
        return history, weights(model)

    rules = [
        Projection(kernels, on=kind("kernel"), name="kernels"),
        Projection(biases, on=kind("bias"), name="biases"),
    ]
    assert_same(
        fit(small_model(kernel_constraint=kernels, bias_constraint=biases), sgd()),
        fit(small_model(), InterventionOptimizer(sgd(), rules)),
    )


def test_an_absolute_clipping_is_a_constraint_that_clips():
    class Box(constraints.Constraint):
        def __call__(self, w):
            return keras.ops.clip(w, -0.2, 0.2)

    rule = Clipping(0.2, unit="absolute", on=kind("kernel"))
    assert_same(
        trained(small_model(kernel_constraint=Box()), sgd(), "graph"),
        trained(small_model(), InterventionOptimizer(sgd(), [rule]), "graph"),
    )
