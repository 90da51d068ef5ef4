"""What does nothing changes nothing: the wrapper without rules, and every rule at strength zero."""

import functools

import keras
import pytest

from rlweights.weights.interventions import PLACEMENTS, RULES, Increment
from rlweights.weights.optimizer import InterventionOptimizer
from support.keras_models import MODES, assert_same, data, small_model, state, train_step, weights

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01, clipnorm=0.5),
    "adamw": lambda: keras.optimizers.AdamW(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.9)),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
}

AT_ZERO = {
    "clipping": {"bound": 1e6},
    "noise": {"stddev": 0.0},
    "adaptive_noise": {"initial_stddev": 0.0},
    "increment": {"amount": 0.0},
    "projection": {"constraint": lambda weight: weight},
    "shrinkage": {"rate": 0.0},
    "recycling": {},  # nobody writes scores
    "averaging": {},
    "spectral_norm": {"norm": 1e6, "only_above": True},
    "drop_connect": {"rate": 0.0},
    "sharpness_aware": {"radius": 0.0},
    "pruning": {"sparsity": 0.0, "end": 0},
    "freezing": {"until": 0},
    "quantization": {"begin": 1_000_000},
    "lookahead": {"every": 1_000_000},
    "hare_and_tortoise": {"every": 1_000_000},
    "schedule_free": {"beta": 0.0},
    "continual_backpropagation": {},  # nobody writes scores
}
"""Arguments that make a rule do nothing; signs, clusters and orthogonal matrices have none."""


def train(optimizer, mode, steps=4, iterations=2):
    """Trains in iterations; returns the losses and the weights."""
    model = small_model()
    step = train_step(model, optimizer, mode)
    losses = []
    for i in range(iterations):
        getattr(optimizer, "begin_iteration", lambda: None)()
        losses += [step(*data(seed=steps * i + j)).numpy() for j in range(steps)]
        getattr(optimizer, "end_iteration", lambda: None)()
    return losses, weights(model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_rules_the_wrapper_is_the_inner_optimizer(name, mode):
    bare, wrapped = OPTIMIZERS[name](), InterventionOptimizer(OPTIMIZERS[name]())
    assert_same(train(bare, mode), train(wrapped, mode))
    assert_same(state(bare), state(wrapped.inner))


@pytest.mark.parametrize(("jit_compile", "loss_scaling"), [(False, False), (True, True)])
def test_without_rules_fit_is_the_same(jit_compile, loss_scaling):
    def fit(optimizer):
        if loss_scaling:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
        model = small_model()
        model.compile(optimizer, "mse", jit_compile=jit_compile)
        history = model.fit(*data(), batch_size=4, epochs=3, shuffle=False, verbose=0)
        return history.history, weights(model)

    assert_same(fit(OPTIMIZERS["adam"]()), fit(InterventionOptimizer(OPTIMIZERS["adam"]())))


@functools.cache
def without_rules(mode):
    return train(OPTIMIZERS["sgd"](), mode)


def test_every_rule_that_has_a_zero_is_here():
    assert RULES.keys() - AT_ZERO.keys() == {"binarization", "clustering", "orthogonal"}


@pytest.mark.filterwarnings("ignore:.*Change the order of the rules")  # one at each placement: none acts
@pytest.mark.parametrize("name", AT_ZERO)
def test_at_strength_zero_a_rule_is_no_rule_at_any_placement(name):
    rules = [
        RULES[name](**AT_ZERO[name], placement=placement, name=f"{name}-{placement}")
        for placement in RULES[name].placements
    ]
    assert_same(without_rules("graph"), train(InterventionOptimizer(OPTIMIZERS["sgd"](), rules), "graph"))


@pytest.mark.filterwarnings("ignore:.*Change the order of the rules")  # at strength zero none breaks anything
def test_at_strength_zero_all_rules_together_are_none_under_xla():
    rules = [RULES[name](**arguments) for name, arguments in AT_ZERO.items()]
    assert_same(without_rules("xla"), train(InterventionOptimizer(OPTIMIZERS["sgd"](), rules), "xla"))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_at_the_smallest_strength_a_rule_is_seen(placement):
    """What is compared above does depend on the weights: a change of 1e-6 shows."""
    rule = Increment(1e-6, placement=placement)
    trained = train(InterventionOptimizer(OPTIMIZERS["sgd"](), [rule]), "eager")
    with pytest.raises(AssertionError):
        assert_same(without_rules("eager"), trained)
