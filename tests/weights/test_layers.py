"""What a weight is to its layer: fan-in, kernel or bias, for every kind of layer, and for the user's own."""

import keras
import numpy as np
import pytest

import rlweights as rw
from rlweights.weights.layers import Anatomy
from support.keras_models import small_model

L = keras.layers
IMAGE, SEQUENCE = (1, 6, 6, 4), (1, 5, 4)


def called(layer, *shapes):
    layer(*[np.ones(shape, "float32") for shape in shapes])
    return layer


FAN_INS = [
    (lambda: called(L.Dense(5), (1, 4)), {"kernel": 4, "bias": 4}),
    (
        lambda: called(L.EinsumDense("abc,cd->abd", (None, 7), bias_axes="d"), (1, 5, 4)),
        {"kernel": 4, "bias": 4},
    ),
    (lambda: called(L.Conv2D(6, 3, groups=2), IMAGE), {"kernel": 3 * 3 * 2, "bias": 3 * 3 * 2}),
    (lambda: called(L.Conv1D(6, 3), SEQUENCE), {"kernel": 12, "bias": 12}),
    (lambda: called(L.DepthwiseConv2D((3, 1), depth_multiplier=2), IMAGE), {"kernel": 3, "bias": 3}),
    (
        lambda: called(L.SeparableConv1D(6, 2, depth_multiplier=2), SEQUENCE),
        {"depthwise_kernel": 2, "pointwise_kernel": 8, "bias": 8},
    ),
    (lambda: called(L.Conv2DTranspose(6, 3), IMAGE), {"kernel": 3 * 3 * 4, "bias": 3 * 3 * 4}),
    (lambda: called(L.GRU(3), SEQUENCE), {"kernel": 4, "recurrent_kernel": 3, "bias": 4}),
    (lambda: called(L.LSTM(3), SEQUENCE), {"kernel": 4, "recurrent_kernel": 3, "bias": 4}),
    (
        lambda: called(L.ConvLSTM1D(3, 2), (1, 5, 6, 4)),
        {"kernel": 2 * 4, "recurrent_kernel": 2 * 3, "bias": 2 * 4},
    ),
    (lambda: called(L.Embedding(10, 3), (1, 2)), {"embeddings": 1}),
]


@pytest.mark.parametrize(("make", "expected"), FAN_INS)
def test_fan_in(make, expected):
    layer = make()
    anatomy = Anatomy(layer.trainable_variables)
    assert {v.name: anatomy.known_part(v).fan_in for v in layer.trainable_variables} == expected
    kernels = {v.name for v in layer.trainable_variables if anatomy.is_kernel(v)}
    assert kernels == expected.keys() - {"bias"}


def test_attention():
    layer = called(L.MultiHeadAttention(2, 5, name="attention"), (1, 4, 12), (1, 4, 12))
    anatomy = Anatomy(layer.trainable_variables)
    found = {v.path.partition("/")[2]: anatomy.known_part(v).fan_in for v in layer.trainable_variables}
    assert found == {
        **{f"{part}/{name}": 12 for part in ("query", "key", "value") for name in ("kernel", "bias")},
        **{f"attention_output/{name}": 2 * 5 for name in ("kernel", "bias")},
    }
    assert [v.name for v in layer.trainable_variables if anatomy.is_kernel(v)] == ["kernel"] * 4


def test_the_bias_of_a_frozen_kernel_and_the_factors_of_lora():
    layer = called(L.Dense(6), (1, 4))
    layer.enable_lora(2)
    anatomy = Anatomy(layer.trainable_variables)
    found = {v.name: anatomy.known_part(v).fan_in for v in layer.trainable_variables}
    assert found == {"bias": 4, "lora_kernel_a": 4, "lora_kernel_b": 2}


class Mixing(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2, 3), name="w")

    def call(self, x):
        return keras.ops.einsum("bi,ijk->bjk", x, self.w)


class Registered(Mixing):
    pass


@rw.parts_of.register
def _(layer: Registered):
    return [rw.Part(layer.w, inputs=(0,))]


def test_a_layer_of_the_users_own_is_refused_by_name_until_it_says_what_it_is():
    unknown, known = called(Mixing(), (1, 4)), called(Registered(), (1, 4))
    with pytest.raises(
        ValueError, match=r"clipping: which axes of .*mixing/w, shape \(4, 2, 3\).*layer Mixing"
    ):
        rw.InterventionOptimizer(keras.optimizers.SGD(), [rw.Clipping(on=".*")]).build([unknown.w])
    rule = rw.Clipping(1.0, on=".*")
    rw.InterventionOptimizer(keras.optimizers.SGD(), [rule]).build([known.w])
    assert float(rule.limit(known.w, 0)) == 0.5


def test_two_branches_with_equal_layer_names_are_two_layers():
    def branch(inputs):
        return keras.Sequential([keras.Input((inputs,)), L.Dense(2, name="dense")], name="branch")

    def kernel(branch):
        return branch.get_layer("dense").kernel

    a, b = branch(4), branch(64)
    variables = [*a.trainable_variables, *b.trainable_variables]
    rule = rw.Clipping(1.0, per_layer=True)
    rw.InterventionOptimizer(keras.optimizers.SGD(), [rule]).build(variables)
    assert [float(rule.limit(v, 0)) for v in variables] == [0.5, 0.5, 0.125, 0.125]
    assert [name for name in rule.metric_names if name.startswith("clipped/")] == [
        "clipped/branch/dense",
        "clipped/branch/dense_2",
    ]


def test_unit_norm_and_factorised_noise_follow_the_layer():
    layer = called(L.MultiHeadAttention(2, 5, name="attention"), (1, 4, 12), (1, 4, 12))
    projection, noise = rw.Projection("unit_norm"), rw.Noise(1.0, kind="factorised")
    optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(), [projection, noise])
    optimizer.build(layer.trainable_variables)
    query = layer.trainable_variables[0]
    np.testing.assert_allclose(
        np.linalg.norm(projection.update(query, 0), axis=0), np.ones((2, 5)), rtol=1e-5
    )
    assert np.linalg.matrix_rank(np.asarray(noise.delta(query, 0)).reshape(12, 10)) == 1


DEFAULTS = [
    (lambda: called(L.GRU(3), SEQUENCE), {"kernel", "recurrent_kernel", "bias"}),
    (lambda: called(L.SeparableConv1D(6, 2), SEQUENCE), {"depthwise_kernel", "pointwise_kernel", "bias"}),
    (lambda: called(L.LayerNormalization(), (1, 4)), set()),
    (lambda: called(L.Embedding(10, 3), (1, 2)), set()),
]


@pytest.mark.parametrize(("make", "expected"), DEFAULTS)
def test_what_rules_select_unless_told_otherwise(make, expected):
    head = called(L.Dense(1, name="head"), (1, 2))
    layer = make()
    variables = [*layer.trainable_variables, *head.trainable_variables]
    rule = rw.Clipping()
    rw.InterventionOptimizer(keras.optimizers.SGD(), [rule]).build(variables)
    assert {path.rpartition("/")[2] for path in rule.selected() if "head" not in path} == expected
    assert rule.describe().endswith(f"({len(expected) + 2} of {len(variables)} weights)")


def test_lora_factors_are_selected_and_the_frozen_kernel_is_not_there():
    model = small_model()
    model.get_layer("hidden").enable_lora(2)
    rule = rw.Clipping()
    rw.InterventionOptimizer(keras.optimizers.SGD(), [rule]).build(model.trainable_variables)
    assert {"hidden/lora_kernel_a", "hidden/lora_kernel_b"} < set(rule.selected())
    assert "hidden/kernel" not in rule.selected()
