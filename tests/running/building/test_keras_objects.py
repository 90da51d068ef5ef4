"""Optimizers, activations and schedules by Keras' names, and what is said where there is none."""

import keras
import pytest
import tensorflow as tf

from rlweights.running.building.assembly import Assembly
from rlweights.running.building.keras_objects import ACTIVATIONS, OPTIMIZERS, SCHEDULES
from rlweights.running.config import agent_file
from support.assemblies import assembled, refused

# Networks -----------------------------------------------------------------------------------------


def test_unknown_activations_name_the_nearest():
    message = refused("network.activation=tanhh")
    assert message == "network.activation = 'tanhh': Keras has no such activation. Did you mean 'tanh'?"
    assert {"tanh", "relu", "swish", "linear"} <= set(ACTIVATIONS)
    assert not {"get", "serialize", "deserialize"} & set(ACTIVATIONS)


# Optimizer ----------------------------------------------------------------------------------------


def test_the_algorithm_brings_its_optimizer():
    inner = assembled().optimizer.inner
    assert isinstance(inner, keras.optimizers.Adam)
    assert inner.epsilon == 1e-5, "not Keras' 1e-7"
    a2c = agent_file.parse({"environment": {"id": "CartPole-v1"}, "algorithm": {"name": "a2c"}}, "my.toml")
    assert isinstance(Assembly(a2c, "my.toml").optimizer.inner, keras.optimizers.RMSprop)


def test_arguments_of_the_optimizer_are_its_own():
    inner = assembled("optimizer.beta_1=0.5").optimizer.inner
    assert (inner.beta_1, inner.epsilon) == (0.5, 1e-5)
    inner = assembled("optimizer.name=sgd", "optimizer.momentum=0.5").optimizer.inner
    assert isinstance(inner, keras.optimizers.SGD)
    assert inner.momentum == 0.5
    inner = assembled("optimizer.name=adamw").optimizer.inner
    assert inner.epsilon == 1e-7, "another optimizer has Keras' own defaults"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_can_be_had(name):
    assert type(assembled(f"optimizer.name={name}").optimizer.inner) is OPTIMIZERS[name]


@pytest.mark.parametrize(
    ("overrides", "key", "why"),
    [
        (
            ["optimizer.name=adamm"],
            "optimizer.name = 'adamm'",
            "Keras has no such optimizer. Did you mean 'adam'? Valid: ",
        ),
        (
            ["optimizer.name=Adam"],
            "optimizer.name = 'Adam'",
            "Keras has no such optimizer. Did you mean 'adam'? Valid: ",
        ),
        (
            ["optimizer.name=optimizer"],
            "optimizer.name = 'optimizer'",
            "Keras has no such optimizer. Valid: ",
        ),
        (
            ["optimizer.beta1=0.9"],
            "optimizer.beta1 = 0.9",
            "is no argument of Adam. Did you mean 'beta_1'? Valid: beta_1, ",
        ),
        (
            ["optimizer.name=sgd", "optimizer.beta_1=0.9"],
            "optimizer.beta_1 = 0.9",
            "is no argument of SGD. Valid: momentum, ",
        ),
        (
            ["optimizer.learning_rate=1.0"],
            "optimizer.learning_rate = 1.0",
            "is algorithm.learning_rate's business",
        ),
        (
            ["optimizer.beta_1=x"],
            "optimizer = { name = 'adam', epsilon = 1e-05, beta_1 = 'x' }",
            "Cast string to float is not",
        ),
        (
            ["optimizer.clipnorm=1", "optimizer.clipvalue=1"],
            "optimizer = { name = 'adam', epsilon = 1e-05, clipnorm = 1, clipvalue...",
            "Only one of",
        ),
        (
            ["optimizer.epsilon=inf", "optimizer.weight_decay=1e300"],
            "",
            "optimizer = { name = 'adam', epsilon = inf, ",
        ),
        (["optimizer.use_ema=true"], "", "`use_ema=True` on the inner optimizer averages weights before"),
    ],
)
def test_optimizers_that_cannot_be_had(overrides, key, why):
    assert refused(*overrides).startswith(f"{key}: {why}" if key else why)


# Strengths ----------------------------------------------------------------------------------------


def test_keras_schedules_follow_the_optimizer_step():
    table = {
        "schedule": "ExponentialDecay",
        "initial_learning_rate": 1.0,
        "decay_steps": 10,
        "decay_rate": 0.5,
    }
    (rule,) = assembled(rules=[{"rule": "noise", "stddev": table}]).rules
    assert float(rule.stddev(tf.constant(20))) == 0.25
    assert "PiecewiseConstantDecay" in SCHEDULES


def test_unknown_schedules_name_the_nearest():
    assert refused(rules=[{"rule": "noise", "stddev": {"schedule": "CosineDecy"}}]).startswith(
        "interventions.0.stddev.schedule = 'CosineDecy': Keras has no such schedule. "
        "Did you mean 'CosineDecay'? Valid: CosineDecay, "
    )
