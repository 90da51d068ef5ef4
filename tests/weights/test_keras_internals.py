"""Canaries: each fails, with the attribute's name, when a release of Keras takes a private attribute away."""

import keras
import numpy as np
import pytest

from rlweights.weights import keras_internals


@pytest.fixture
def model():
    inner = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="a")], name="inner")
    return keras.Sequential([keras.Input((3,)), inner, keras.layers.Dense(1, name="b")], name="outer")


def has(owner, name: str) -> None:
    """Makes sure that an object of Keras' still has a private attribute."""
    assert hasattr(owner, name), f"keras {keras.__version__} has no {type(owner).__name__}.{name} any more"


def test_trainable_variables_of_an_optimizer(model):
    optimizer = keras.optimizers.Adam()
    has(optimizer, "_trainable_variables")
    assert keras_internals.trainable_variables(optimizer) == []
    optimizer.build(model.trainable_variables)
    found = keras_internals.trainable_variables(optimizer)
    assert [id(v) for v in found] == [id(v) for v in model.trainable_variables]


def test_variable_index(model):
    optimizer = keras.optimizers.Adam()
    has(optimizer, "_get_variable_index")
    optimizer.build(model.trainable_variables)
    assert [keras_internals.variable_index(optimizer, v) for v in model.trainable_variables] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        keras_internals.variable_index(optimizer, keras.Variable(np.zeros(2)))


def test_layers_of_a_model(model):
    has(model, "_flatten_layers")
    names = [layer.name for layer in keras_internals.layers_of(model)]
    assert names[0] == "outer"
    assert {"inner", "a", "b"} < set(names)


def test_own_trainable_variables(model):
    layer = model.get_layer("b")
    has(layer, "_trainable_variables")
    assert [v.name for v in keras_internals.own_trainable_variables(layer)] == ["kernel", "bias"]
    assert keras_internals.own_trainable_variables(model.get_layer("inner")) == []


def test_path_of_a_variable(model):
    variable = model.get_layer("b").kernel
    has(variable, "_path")
    keras_internals.set_path(variable, "outer/b/kernel")
    assert variable.path == "outer/b/kernel"


def test_own_variables(model):
    layer = model.get_layer("b")
    has(layer, "_non_trainable_variables")
    layer.enable_lora(1)
    assert sorted(v.name for v in keras_internals.own_variables(layer)) == [
        *("bias", "kernel", "lora_kernel_a", "lora_kernel_b"),
    ]
    assert keras_internals.own_variables(model) == []


def test_the_cell_of_convolutional_lstm_layers():
    assert isinstance(keras.layers.ConvLSTM1D(2, 2).cell, keras_internals.conv_lstm_cell())


def test_the_global_seed():
    keras.utils.set_random_seed(123)
    assert keras_internals.global_seed() == 123


def test_present_values_of_a_stateless_scope():
    variable = keras.Variable(1.0)
    assert keras_internals.present_values() == {}
    with keras.StatelessScope([(variable, keras.ops.ones(()))]):
        assert set(keras_internals.present_values()) == {id(variable)}
