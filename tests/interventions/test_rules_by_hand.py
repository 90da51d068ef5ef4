"""Each rule's numbers, computed by hand, and the relations between rules."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw


def model(*units: int, inputs: int = 4) -> Any:
    """Dense layers hidden_0, hidden_1, ... with known weights."""
    network = keras.Sequential(
        [keras.Input((inputs,)), *(keras.layers.Dense(n, name=f"hidden_{i}") for i, n in enumerate(units))]
    )
    for index, variable in enumerate(network.trainable_variables):
        values = np.linspace(-1.0, 1.0, int(np.prod(variable.shape)), dtype=np.float32)
        variable.assign(values.reshape(variable.shape) * (index + 1))
    return network


def applied(rule: rw.Intervention, network: Any, steps: int = 1, inner: Any = None) -> Any:
    """Runs optimizer steps of zero gradients, as one iteration."""
    optimizer = rw.InterventionOptimizer(inner or keras.optimizers.SGD(0.1), [rule])
    optimizer.build(network.trainable_variables)
    optimizer.begin_iteration()
    for _ in range(steps):
        optimizer.apply([ops.zeros_like(v) for v in network.trainable_variables])
    optimizer.end_iteration()
    return optimizer


def arrays(network: Any) -> list[np.ndarray]:
    return [v.numpy().copy() for v in network.trainable_variables]


# Clipping ---------------------------------------------------------------------------------------------


def test_clipping_in_absolute_units_is_a_clamp():
    clipped = rw.Clipping(0.5, unit="absolute").update(ops.array([-2.0, -0.5, 0.1, 3.0]), 0)
    assert np.array_equal(clipped, np.array([-0.5, -0.5, 0.1, 0.5], np.float32))


def test_clipping_in_fan_in_units_takes_a_bias_by_its_own_layers_kernel():
    network = model(9, 2, inputs=4)
    before = arrays(network)
    optimizer = applied(rw.Clipping(0.6), network)
    bounds = [np.float32(0.6) * np.float32(n**-0.5) for n in (4, 4, 9, 9)]
    for old, new, bound in zip(before, arrays(network), bounds, strict=True):
        assert np.array_equal(new, np.clip(old, -bound, bound))
    flat = np.concatenate([np.abs(b).ravel() > lim for b, lim in zip(before, bounds, strict=True)])
    assert float(optimizer.metrics()["clipping/clipped"]) == pytest.approx(flat.mean())
    assert float(optimizer.metrics()["clipping/saturated"]) == pytest.approx(flat.mean())


def test_clipping_in_init_units_clips_nothing_at_first():
    network = model(9, 2)
    before = arrays(network)
    applied(rw.Clipping(1.0, unit="init", on=rw.kind("kernel")), network)
    assert all(np.array_equal(a, b) for a, b in zip(before, arrays(network), strict=True))


def test_clipping_is_idempotent():
    network = model(9, 2)
    applied(rw.Clipping(0.6), network)
    once = arrays(network)
    applied(rw.Clipping(0.6), network, steps=2)
    assert all(np.array_equal(a, b) for a, b in zip(once, arrays(network), strict=True))


def test_the_official_rules_numbers():
    """The reference: clamp to kappa / sqrt(fan_in), fan-in 64, kappa 1, a bias by its layer's fan-in."""
    network = model(64, inputs=64)
    applied(rw.Clipping(1.0), network)
    for value in arrays(network):
        assert np.abs(value).max() == np.float32(0.125)


# Projection -------------------------------------------------------------------------------------------

CONSTRAINTS = [
    keras.constraints.MaxNorm(0.7),
    keras.constraints.NonNeg(),
    keras.constraints.UnitNorm(),
    keras.constraints.MinMaxNorm(0.2, 0.8),
]


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: type(c).__name__)
def test_projection_equals_keras_constraint_bit_for_bit(constraint):
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=(4, 5)).astype("float32") for _ in range(5)]
    start = rng.normal(size=(4, 5)).astype("float32")

    def trained(optimizer, own):
        layer = keras.layers.Dense(5, use_bias=False, name="layer", kernel_constraint=own)
        layer.build((None, 4))
        layer.kernel.assign(start)
        optimizer.build([layer.kernel])
        for gradient in gradients:
            optimizer.apply([ops.convert_to_tensor(gradient)])
        return layer.kernel.numpy()

    theirs = trained(keras.optimizers.Adam(0.1), constraint)
    ours = trained(rw.InterventionOptimizer(keras.optimizers.Adam(0.1), [rw.Projection(constraint)]), None)
    assert np.array_equal(theirs, ours)


def test_projection_to_the_initial_norm():
    network = model(3)
    norm = np.linalg.norm(arrays(network)[0])
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(1.0), [rw.Projection("initial_norm")])
    optimizer.build(network.trainable_variables)
    optimizer.apply([ops.ones_like(v) for v in network.trainable_variables])
    assert np.linalg.norm(arrays(network)[0]) == pytest.approx(norm, rel=1e-6)


def test_projection_to_unit_inputs():
    projected = rw.Projection("unit_inputs").update(ops.array([[3.0, 0.0], [4.0, 2.0]]), 0)
    assert np.allclose(projected, [[0.6, 0.0], [0.8, 1.0]])


def test_projection_by_a_function_and_a_bad_one():
    assert float(rw.Projection(lambda w: w * 2).update(ops.array([1.5]), 0)[0]) == 3.0
    with pytest.raises(ValueError, match="'unti_norm' is neither"):
        rw.Projection("unti_norm")
    with pytest.raises(TypeError, match="Received: 3"):
        rw.Projection(3)


# Noise ------------------------------------------------------------------------------------------------


def test_noise_scales_with_its_stddev():
    weight = ops.zeros((50, 40))
    one, three = (np.asarray(rw.Noise(s).delta(weight, 7)) for s in (1.0, 3.0))
    assert np.allclose(three, 3.0 * one)
    assert abs(one.std() - 1.0) < 0.05


def test_factorised_noise_is_an_outer_product():
    drawn = np.asarray(rw.Noise(1.0, kind="factorised").delta(ops.zeros((6, 5)), 0))
    assert np.linalg.matrix_rank(drawn, tol=1e-5) == 1


def test_noise_is_fresh_at_each_step_and_the_same_for_the_same_seed():
    network = model(8)
    rule = rw.Noise(0.1, placement="after_step", seed=3)
    applied(rule, network)
    once = arrays(network)
    again = model(8)
    applied(rw.Noise(0.1, placement="after_step", seed=3), again)
    assert all(np.array_equal(a, b) for a, b in zip(once, arrays(again), strict=True))
    two = model(8)
    applied(rw.Noise(0.1, placement="after_step", seed=3), two, steps=2)
    first, second = once[0] - arrays(model(8))[0], arrays(two)[0] - once[0]
    assert not np.allclose(first, second)


@pytest.mark.parametrize(("distance", "factor"), [(0.001, 1.01), (1.0, 1 / 1.01), (float("nan"), 1.0)])
def test_adaptive_noise_moves_by_one_percent_towards_its_target(distance, factor):
    network = model(8)
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), [rw.AdaptiveNoise(0.01, 0.2)])
    optimizer.build(network.trainable_variables)
    optimizer.begin_iteration()
    optimizer.end_iteration()
    optimizer.feedback["policy_distance"] = distance
    optimizer.begin_iteration()
    assert float(optimizer.metrics()["adaptive_noise/stddev"]) == pytest.approx(0.2 * factor, rel=1e-5)


# Increment --------------------------------------------------------------------------------------------


def test_increments_cancel():
    network = model(4)
    before = arrays(network)
    optimizer = applied(rw.Increment(0.25), network)
    assert np.allclose(arrays(network)[0] - before[0], 0.25, atol=1e-7)
    flat = np.concatenate([b.ravel() for b in before])
    expected = 0.25 * np.sqrt(flat.size) / np.linalg.norm(flat)
    assert float(optimizer.metrics()["increment/relative_change"]) == pytest.approx(expected, rel=1e-5)
    applied(rw.Increment(-0.25), network)
    assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(before, arrays(network), strict=True))


def test_increment_by_arrays_schedules_and_functions():
    network = model(4)
    before = arrays(network)
    amounts = {v.path: np.full(v.shape, i + 1.0) for i, v in enumerate(network.trainable_variables)}
    applied(rw.Increment(amounts, scale=0.5), network)
    for i, (old, new) in enumerate(zip(before, arrays(network), strict=True)):
        assert np.allclose(new - old, 0.5 * (i + 1), atol=1e-6)
    network = model(4)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.0])
    applied(rw.Increment(schedule), network, steps=3)
    assert np.allclose(arrays(network)[0] - before[0], 1.0, atol=1e-6)
    network = model(4)
    optimizer = rw.InterventionOptimizer(
        keras.optimizers.SGD(0.1),
        [rw.Increment(lambda w, step, f: -f["rate"] * w, feedback={"rate": 0.0})],
    )
    optimizer.build(network.trainable_variables)
    optimizer.feedback["rate"] = 0.5
    optimizer.apply([ops.zeros_like(v) for v in network.trainable_variables])
    assert np.allclose(arrays(network)[0], 0.5 * before[0])


def test_increment_checks_its_shape():
    with pytest.raises(ValueError, match=r"`delta` must keep shape \(4, 4\)"):
        applied(rw.Increment([1.0, 2.0], on=rw.kind("kernel")), model(4))


# Shrinkage --------------------------------------------------------------------------------------------


def test_shrinkage_towards_zero_and_the_initial_weights():
    network = model(4)
    before = arrays(network)
    applied(rw.Shrinkage(0.25, towards="zero"), network, steps=2)
    assert np.allclose(arrays(network)[0], 0.75**2 * before[0])
    network = model(4)
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(1.0), [rw.Shrinkage(0.25, towards="initial")])
    optimizer.build(network.trainable_variables)
    optimizer.apply([ops.ones_like(v) for v in network.trainable_variables])
    assert np.allclose(arrays(network)[0], before[0] - 0.75, atol=1e-6)


def test_soft_shrink_and_perturb_has_its_stationary_norm():
    """w <- (1 - e) w + e w_fresh is an AR(1): its stationary variance is e / (2 - e) of the initial one."""
    network = keras.Sequential([keras.Input((40,)), keras.layers.Dense(50, use_bias=False, name="layer")])
    kernel = network.trainable_variables[0]
    scale = float(np.sqrt(np.mean(kernel.numpy() ** 2)))
    applied(rw.Shrinkage(0.2, towards="fresh"), network, steps=60)
    expected = scale * np.sqrt(0.2 / 1.8)
    assert float(np.sqrt(np.mean(kernel.numpy() ** 2))) == pytest.approx(expected, rel=0.05)


# Recycling --------------------------------------------------------------------------------------------


def test_recycling_reinitialises_exactly_the_dormant_units():
    network = model(3, 2)
    inner = keras.optimizers.Adam(0.0)
    optimizer = rw.InterventionOptimizer(inner, [rw.Recycling()])
    optimizer.build(network.trainable_variables)
    optimizer.begin_iteration()
    optimizer.apply([ops.ones_like(v) for v in network.trainable_variables])
    before = arrays(network)
    (name,) = (n for n in optimizer.feedback if n.startswith("dormant_score/"))
    optimizer.feedback[name] = [1.0, 0.02, 0.5]
    optimizer.end_iteration()
    kernel, bias, following, last = arrays(network)
    assert np.array_equal(kernel[:, [0, 2]], before[0][:, [0, 2]])
    assert not np.any(kernel[:, 1] == before[0][:, 1])
    assert np.array_equal(bias, before[1] * [1, 0, 1])
    assert np.array_equal(following[[0, 2]], before[2][[0, 2]])
    assert not following[1].any()
    assert np.array_equal(last, before[3])
    kernels = [optimizer.slots(v) for v in network.trainable_variables]
    for slot in kernels[0]:
        assert not slot.numpy()[:, 1].any()
        assert slot.numpy()[:, [0, 2]].all()
    for slot in kernels[2]:
        assert not slot.numpy()[1].any()
        assert slot.numpy()[[0, 2]].all()
    assert float(optimizer.metrics()["recycling/recycled"]) == pytest.approx(1 / 3)
    optimizer.begin_iteration()
    optimizer.end_iteration()  # nothing was measured since: nothing happens
    assert np.array_equal(arrays(network)[0], kernel)


def test_recycling_names_what_does_not_fit():
    with pytest.raises(ValueError, match="no layer 'nope' among the selected"):
        applied(rw.Recycling(units={"nope": "hidden_1"}), model(3, 2))
    with pytest.raises(ValueError, match="no layer is followed by another"):
        applied(rw.Recycling(), model(3))


# Averaging --------------------------------------------------------------------------------------------


def test_averaging_by_hand_and_only_in_evaluation():
    network = model(4)
    before = arrays(network)
    rules = [rw.Increment(1.0), rw.Averaging(0.75)]
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.1), rules)
    optimizer.build(network.trainable_variables)
    optimizer.apply([ops.zeros_like(v) for v in network.trainable_variables])
    assert np.allclose(arrays(network)[0], before[0] + 1.0)
    with optimizer.evaluation():
        assert np.allclose(arrays(network)[0], before[0] + 0.25, atol=1e-6)
    assert np.allclose(arrays(network)[0], before[0] + 1.0)


def test_the_average_of_clipped_weights_is_within_the_bound():
    network = model(4)
    rules = [rw.Clipping(0.3, unit="absolute"), rw.Averaging(0.5)]
    optimizer = rw.InterventionOptimizer(keras.optimizers.Adam(0.5), rules)
    for variable in network.trainable_variables:
        variable.assign(ops.clip(variable, -0.3, 0.3))
    optimizer.build(network.trainable_variables)
    for sign in (1.0, -1.0, 1.0):
        optimizer.apply([sign * ops.ones_like(v) for v in network.trainable_variables])
    with optimizer.evaluation():
        assert max(np.abs(a).max() for a in arrays(network)) <= np.float32(0.3)


# What the papers claim about optimizers ----------------------------------------------------------------


@pytest.mark.parametrize(("beta_1", "beta_2", "jump"), [(0.9, 0.999, 3.162), (0.99, 0.99, 0.1)])
def test_adams_jump_after_gradients_of_zero(beta_1, beta_2, jump):
    """After a long time of zero gradients the first step is (1 - b1) / sqrt(1 - b2) learning rates."""
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.Adam(1.0, beta_1=beta_1, beta_2=beta_2, epsilon=1e-12)
    optimizer.build([weight])
    optimizer._iterations.assign(100_000)
    optimizer.apply([ops.array([1.0])])
    assert abs(float(weight.numpy()[0])) == pytest.approx(jump, rel=1e-3)
