"""The battery that every rule must pass; for a rule of one's own it is one line: `check(MyRule(0.1))`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlweights.interventions.base import Intervention
from rlweights.optimizer import InterventionOptimizer

STEPS = 3
TOLERANCE = 1e-5


def check(rule: Intervention | Callable[[], Intervention]) -> None:
    """Checks that a rule keeps what every rule promises.

    On a small model and a few steps: eager mode, a graph and XLA agree to 1e-5; the step is traced once;
    shapes and dtypes stay; nothing but the selected weights is touched; draws are repeatable and fresh at
    each step; metrics are finite; a placement that is undone leaves clean weights untouched to the last
    bit; the rule is saved and loaded, with its state, alone and inside a `.keras` file.

    Args:
        rule: The rule, which is only read (it is made anew from its configuration for each check), or a
            function that makes one, for rules that cannot be saved; those are not checked for saving.

    Raises:
        AssertionError: If a property does not hold; the message names it.

    Example:
        >>> from rlweights import Clipping
        >>> check(Clipping(0.5, unit="absolute"))
    """
    make = _maker(rule)
    runs = {mode: _Run(make(), mode) for mode in ("eager", "graph", "xla")}
    for mode, run in runs.items():
        run.train()
        _check_metrics(run, mode)
    reference = runs["eager"].weights()
    for mode in ("graph", "xla"):
        for name, value in runs[mode].weights().items():
            difference = float(np.max(np.abs(value - reference[name]), initial=0.0))
            assert difference <= TOLERANCE, (
                f"{mode} and eager mode differ by {difference:.2g} in {name}: a rule may use no Python or "
                f"NumPy state or randomness inside `update` or `delta`"
            )
        traces = runs[mode].traces
        assert traces == 1, f"the {mode} step was traced {traces} times and not once"
    _check_untouched(make)
    if runs["eager"].rule.placement.startswith("during_"):
        _check_undone(make)
    if isinstance(rule, Intervention):
        _check_saving(rule)


def _maker(rule: Intervention | Callable[[], Intervention]) -> Callable[[], Intervention]:
    if not isinstance(rule, Intervention):
        return rule
    config = rule.get_config()
    again = type(rule).from_config(config).get_config()
    assert again == config, f"the configuration changes on its way: {config} became {again}"
    return lambda: type(rule).from_config(config)


class _Run:
    """A small model trained with one rule for a few steps, as one iteration."""

    def __init__(self, rule: Intervention, mode: str, model: Any = None):
        self.rule = rule
        self.mode = mode
        self.model = model or _model()
        self.optimizer = InterventionOptimizer(keras.optimizers.Adam(1e-2, name="adam"), [rule])
        self.optimizer.build(self.model.trainable_variables)
        self._step: Any = self._one_step
        if mode != "eager":
            self._step = tf.function(self._one_step, jit_compile=mode == "xla", autograph=False)

    @property
    def traces(self) -> int:
        return self._step.experimental_get_tracing_count()

    def train(self) -> None:
        self.optimizer.begin_iteration()
        for _ in range(STEPS):
            self._step()
        self.optimizer.end_iteration()

    def weights(self) -> dict[str, np.ndarray]:
        return {v.path: v.numpy() for v in self.model.trainable_variables}

    def _one_step(self):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(_INPUTS) - 0.5))
        self.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)


_INPUTS = np.linspace(-1.0, 1.0, 32, dtype=np.float32).reshape(8, 4)


def _model() -> Any:
    """Two layers and a normalisation between them, with the same weights each time."""
    seeds = iter(range(100))

    def dense(units, name):
        initializer = keras.initializers.GlorotUniform(seed=next(seeds))
        return keras.layers.Dense(units, "tanh", kernel_initializer=initializer, name=name)

    layers = [dense(6, "hidden"), keras.layers.LayerNormalization(name="norm"), dense(3, "head")]
    return keras.Sequential([keras.Input((4,)), *layers], name="model")


def _check_metrics(run: _Run, mode: str) -> None:
    expected = {"relative_change", *run.rule.metric_names}
    for name in expected:
        value = float(run.optimizer.metrics()[f"{run.rule.name}/{name}"])
        assert np.isfinite(value), f"metric {name!r} is {value} in {mode}"


def _check_untouched(make: Callable[[], Intervention]) -> None:
    """With gradients of zero, only the selected weights may change."""
    run = _Run(make(), "eager")
    before = run.weights()
    zeros = [tf.zeros(v.shape, v.dtype) for v in run.model.trainable_variables]
    run.optimizer.begin_iteration()
    run.optimizer.apply(zeros, run.model.trainable_variables)
    run.optimizer.end_iteration()
    chosen = {v.path for v in run.rule.variables}
    for name, value in run.weights().items():
        if name not in chosen:
            assert np.array_equal(value, before[name]), f"{name} is not selected, and changes"
        assert value.dtype == before[name].dtype, f"{name} changes its dtype"


def _check_undone(make: Callable[[], Intervention]) -> None:
    run = _Run(make(), "xla")
    before = run.weights()
    run.optimizer.begin_iteration()
    with run.optimizer.clean():
        seen = run.weights()
    run.optimizer.end_iteration()
    for name, value in run.weights().items():
        assert np.array_equal(seen[name], before[name]), f"{name} is not clean while it is noisy"
        assert np.array_equal(value, before[name]), f"{name} does not come back to the last bit"


def _check_saving(rule: Intervention) -> None:
    """A model that was trained with the rule, saved and loaded, goes on as if nothing had happened."""
    config = rule.get_config()
    model = _model()
    optimizer = InterventionOptimizer(
        keras.optimizers.Adam(1e-2, name="adam"), [type(rule).from_config(config)]
    )
    model.compile(optimizer=optimizer, loss="mse")
    run = _Run.__new__(_Run)
    run.rule, run.mode, run.model, run.optimizer = optimizer.interventions[0], "eager", model, optimizer
    run._step = run._one_step
    optimizer.build(model.trainable_variables)
    run.train()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    assert isinstance(loaded.optimizer, InterventionOptimizer), "the loaded model lost its interventions"
    twin = _Run.__new__(_Run)
    twin.rule, twin.mode, twin.model = loaded.optimizer.interventions[0], "eager", loaded
    twin.optimizer, twin._step = loaded.optimizer, twin._one_step
    run.train()
    twin.train()
    values = zip(run.weights().values(), twin.weights().values(), strict=True)
    same = all(np.array_equal(one, other) for one, other in values)
    assert same, "a loaded model goes on differently: some of the rule's state is not saved"
