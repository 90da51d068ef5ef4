"""What the papers and their published code claim, on a scale of seconds."""

import keras
import numpy as np
import pytest
from keras import ops

import rlweights as rw
from rlweights.weights.diagnostics import dormant_scores
from support.dense import arrays, built, model, step

# Adam after zero gradients: Dohare et al. 2023, "Overcoming Policy Collapse in Deep RL" ----------------


@pytest.mark.parametrize(("beta_1", "beta_2", "jump"), [(0.9, 0.999, 3.162), (0.99, 0.99, 0.1)])
def test_adams_jump_after_gradients_of_zero(beta_1, beta_2, jump):
    """After a long time of zero gradients the first step is (1 - b1) / sqrt(1 - b2) learning rates."""
    weight = keras.Variable([0.0])
    optimizer = keras.optimizers.Adam(0.01, beta_1=beta_1, beta_2=beta_2, epsilon=1e-12)
    optimizer.build([weight])
    optimizer._iterations.assign(100_000)
    optimizer.apply([ops.array([5.0])])
    assert -float(weight.numpy()[0]) == pytest.approx(jump * 0.01, rel=1e-3)


# Weight clipping: Elsayed et al. 2024 -------------------------------------------------------------------


def official_clipping(parameters, kappa):
    """The loop of the published code: a bias takes the bound of the parameter before it.

    Parameters are PyTorch's, kernels (out, in). Returns them clipped, and the share that was beyond.
    """
    clipped, beyond, total, bound = [], 0, 0, None
    for p in parameters:
        if p.ndim > 1:
            bound = kappa / np.sqrt(np.prod(p.shape[1:]))
        beyond += int((np.abs(p) > bound).sum())
        total += p.size
        clipped.append(np.clip(p, -bound, bound))
    return clipped, beyond / total


@pytest.mark.parametrize("kappa", [0.5, 1.0, 3.0])
def test_clipping_gives_the_official_rules_numbers(kappa):
    network = model(64, 32, 2, inputs=17)
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:
        variable.assign(0.2 * rng.normal(size=variable.shape))
    expected, share = official_clipping([w.T for w in arrays(network)], kappa)
    optimizer = built([rw.Clipping(kappa)], network)
    step(optimizer, network)
    for found, official in zip(arrays(network), expected, strict=True):
        np.testing.assert_allclose(found, official.T, rtol=1e-6)
    assert 0.0 < share < 1.0
    assert float(optimizer.metrics()["clipping/clipped"]) == pytest.approx(share)


@pytest.mark.parametrize(
    ("kappa", "orthogonal", "glorot", "he"),
    [(1, 0.480, 0.423, 0.592), (2, 0.157, 0.0, 0.184), (3, 0.034, 0.0, 0.0)],
)
def test_how_much_the_first_clipping_takes_depends_on_the_initialiser(kappa, orthogonal, glorot, he):
    """The share that is beyond kappa / sqrt(fan_in) in a layer of 64 by 64, before anything was learned."""
    initializers = {
        keras.initializers.Orthogonal(2**0.5, seed=0): orthogonal,
        keras.initializers.GlorotUniform(seed=0): glorot,
        keras.initializers.HeUniform(seed=0): he,
    }
    for initializer, share in initializers.items():
        layer = keras.layers.Dense(64, use_bias=False, kernel_initializer=initializer, name="layer")
        layer.build((None, 64))
        optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [rw.Clipping(kappa)])
        optimizer.build([layer.kernel])
        optimizer.apply([ops.zeros((64, 64))])
        assert float(optimizer.metrics()["clipping/clipped"]) == pytest.approx(share, abs=0.025)


# ReDo: Sokar et al. 2023 --------------------------------------------------------------------------------


def test_redo_revives_exactly_the_dormant_units_and_keeps_the_function():
    keras.utils.set_random_seed(0)
    hidden, head = keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(3, name="head")
    network = keras.Sequential([keras.Input((8,)), hidden, head], name="net")
    dead = [3, 7, 20]
    hidden.bias.assign(np.where(np.isin(np.arange(32), dead), -100.0, 0.0))
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    optimizer = built([rw.Recycling()], network, keras.optimizers.Adam(1e-3))
    optimizer.begin_iteration()
    outputs, before = network(x).numpy(), arrays(network)
    optimizer.feedback["dormant_score/net/hidden"] = dormant_scores(hidden(x))
    optimizer.end_iteration()
    changed = np.flatnonzero(np.any(hidden.kernel.numpy() != before[0], axis=0))
    assert changed.tolist() == dead
    np.testing.assert_array_equal(np.flatnonzero(~head.kernel.numpy().any(axis=1)), dead)
    np.testing.assert_allclose(network(x).numpy(), outputs, atol=1e-5)
    assert np.all(dormant_scores(hidden(x)).numpy() > 0.025)


# Shrink and perturb: Ash and Adams 2020; soft, Juliani and Ash 2024 -------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_soft_shrink_and_perturb_has_its_stationary_norm(rate):
    """w <- (1 - e) w + e w_fresh is an AR(1): its stationary variance is e / (2 - e) of the initial one."""
    network = model(60, inputs=60)
    kernel = network.trainable_variables[0]
    scale = np.sqrt(np.mean(kernel.numpy() ** 2))
    optimizer = built([rw.Shrinkage(rate, on=rw.kind("kernel"))], network)
    for _ in range(int(8 / rate)):
        step(optimizer, network)
    expected = scale * np.sqrt(rate / (2 - rate))
    assert np.sqrt(np.mean(kernel.numpy() ** 2)) == pytest.approx(expected, rel=0.06)


def test_shrink_and_perturb_keeps_the_order_of_the_outputs():
    """Shrinking alone leaves every decision of a network without biases as it was, which is its point."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(n, use_bias=False, name=f"layer_{n}") for n in (16, 5)]
    network = keras.Sequential([keras.Input((8,)), layers[0], keras.layers.ReLU(), layers[1]], name="net")
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    before = network(x).numpy()
    optimizer = built([rw.Shrinkage(0.4, towards="zero", placement="after_iteration")], network)
    optimizer.begin_iteration()
    optimizer.end_iteration()
    np.testing.assert_allclose(network(x).numpy(), 0.36 * before, rtol=1e-4, atol=1e-6)


# Norms: NaP, Lyle et al. 2024; SimbaV2, Lee et al. 2025 -------------------------------------------------


@pytest.mark.parametrize("constraint", ["norm", "unit_norm"])
def test_a_projection_keeps_the_effective_learning_rate(constraint):
    """Without it the norm of a scale-invariant weight grows, and the step relative to the weight falls."""

    def relative_step(rules):
        kernel = keras.Variable(np.eye(6, dtype=np.float32), name="kernel")
        optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.5), rules)
        optimizer.build([kernel])
        rng = np.random.default_rng(0)
        for _ in range(200):
            w = kernel.numpy()
            gradient = rng.normal(size=w.shape).astype("float32")
            gradient -= w * np.sum(gradient * w, axis=0) / np.sum(w * w, axis=0)  # orthogonal to each unit
            size = np.linalg.norm(0.5 * gradient) / np.linalg.norm(w)
            optimizer.apply([ops.convert_to_tensor(gradient)])
        return size, np.linalg.norm(kernel.numpy())

    kept, norm = relative_step([rw.Projection(constraint)])
    fallen, grown = relative_step([])
    assert norm == pytest.approx(6**0.5, rel=1e-4)
    assert grown > 10 * norm
    assert fallen < kept / 10
