"""The battery that every rule must pass; for a rule of your own it is one line: `check(MyRule(0.1))`."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rlweights.weights.arrays import Scalar, Tensor
from rlweights.weights.compilation import compiled
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.optimizer import InterventionOptimizer

STEPS = 2
"""Optimizer steps of one iteration."""
TOLERANCE = 1e-5


def check(rule: Intervention | Callable[[], Intervention], feedback: Mapping[str, Any] | None = None) -> None:
    """Checks that a rule keeps what every rule promises.

    * `update` or `delta` keeps shape and dtype (float32, bfloat16, float16), changes nothing by itself, and
      gives the same value for the same weight and step: no randomness or state of Python's or NumPy's.
    * Eager mode, a graph and XLA agree to 1e-5, over iterations of several steps; each is traced once.
    * Nothing but the selected weights is touched, and a placement that is undone leaves every weight as it
      was, to the last bit.
    * Metrics are those that the rule names, and finite.
    * The rule comes back from its configuration, and a model that was trained with it comes back from a
      `.keras` file, with the rule's state, and goes on as if nothing had happened.

    The small model on which all this is tried has the layers "model/hidden" (6 units), "model/norm" (a layer
    norm) and "model/head" (3 units).

    Args:
        rule: The rule, which is only read (it is made anew from its configuration for each check), or a
            function that makes one, for rules that cannot be saved; those are not checked for saving.
        feedback: Values that are written before each iteration, by name.

    Raises:
        AssertionError: If a property does not hold; the message names it.
        ValueError: If the rule selects none of the model's weights.
        KeyError: If it reads no feedback of a name in `feedback`.

    Examples:
        >>> from rlweights import Clipping
        >>> check(Clipping(0.5, unit="absolute"))
    """
    make, feedback = _maker(rule), dict(feedback or {})
    for dtype in ("float32", "bfloat16", "float16"):
        _check_purity(_Trial(make(), feedback, dtype))
    eager = _Trial(make(), feedback)
    _check_run(eager, "in eager mode")
    for mode, xla in (("in a graph", False), ("under XLA", True)):
        trial = _Trial(make(), feedback)
        with _holds(f"the rule works {mode}"):
            trial.compile(xla)
        _check_run(trial, mode)
        assert trial.traces == 1, f"the iteration is traced {trial.traces} times {mode}, and not once"
        _check_same(trial, eager, mode)
    if isinstance(rule, Intervention):
        _check_saving(eager)


def _maker(rule: Intervention | Callable[[], Intervention]) -> Callable[[], Intervention]:
    if not isinstance(rule, Intervention):
        return rule
    with _holds("the rule comes back from its configuration"):
        config = rule.get_config()
        again = type(rule).from_config(config).get_config()
    assert again == config, f"the configuration changes on its way: {config} became {again}"
    return lambda: type(rule).from_config(config)


class _Trial:
    """A small model, and iterations of its training with one rule."""

    def __init__(self, rule: Intervention, feedback: Mapping[str, Any], dtype: str = "float32"):
        inner = keras.optimizers.SGD(0.0, momentum=0.9, name="sgd")  # linear: it magnifies no rounding
        self.optimizer = InterventionOptimizer(inner, [rule], name="interventions")
        self.model = _model(dtype)
        self.feedback = feedback
        self.traces = 0
        self._iteration: Callable[[], Any] = self._written
        self.model.compile(optimizer=self.optimizer, loss="mse")
        self.optimizer.build(self.model.trainable_variables)
        self.write()

    @classmethod
    def loaded(cls, path: Path, feedback: Mapping[str, Any]) -> "_Trial":
        """A trial that goes on with a model from a file."""
        self = cls.__new__(cls)
        self.model = keras.saving.load_model(path)
        self.optimizer, self.feedback = self.model.optimizer, feedback
        self._iteration = self._written
        return self

    @property
    def rule(self) -> Intervention:
        return self.optimizer.interventions[0]

    def compile(self, xla: bool) -> None:
        def counted() -> None:
            self.traces += 1
            self._written()

        self._iteration = compiled(counted, xla=xla)

    def write(self) -> None:
        for name, value in self.feedback.items():
            self.optimizer.feedback[name] = value

    def iterate(self) -> None:
        self.write()
        self._iteration()

    def weights(self) -> dict[str, np.ndarray]:
        return {v.path: v.numpy() for v in self.model.trainable_variables}

    def state(self) -> list[np.ndarray]:
        """What optimizer and rule remember, but for the metrics."""
        measured = {id(v) for v in self.rule.metrics.values()}
        return [v.numpy() for v in self.optimizer.variables if id(v) not in measured]

    def _written(self) -> None:
        self.optimizer.begin_iteration()
        tf.while_loop(lambda i: i < STEPS, self._step, [tf.constant(0)])
        self.optimizer.end_iteration()

    def _step(self, i: Scalar) -> list[Tensor]:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(_INPUTS) - 0.5))
        self.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return [i + 1]


_INPUTS = np.linspace(-1.0, 1.0, 32, dtype=np.float32).reshape(8, 4)


def _model(dtype: str) -> Any:
    """Two layers and a normalization between them, with the same weights each time."""

    def dense(units: int, name: str, seed: Scalar) -> Any:
        initializer = keras.initializers.GlorotUniform(seed)
        return keras.layers.Dense(units, "tanh", kernel_initializer=initializer, dtype=dtype, name=name)

    norm = keras.layers.LayerNormalization(dtype=dtype, name="norm")
    return keras.Sequential(
        [keras.Input((4,)), dense(6, "hidden", 0), norm, dense(3, "head", 1)], name="model"
    )


@contextlib.contextmanager
def _holds(promise: str) -> Iterator[None]:
    """Turns any error into an AssertionError that says what was promised."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"it does not hold that {promise}: {error}") from error


def _check_purity(trial: _Trial) -> None:
    rule = trial.rule
    method, name = (rule.delta, "delta") if rule.adds else (rule.update, "update")
    step = keras.ops.copy(trial.optimizer.iterations)
    before = {**trial.weights(), "the rule's state": trial.state()}
    values: list[np.ndarray] = []
    for variable in rule.variables:
        with _holds(f"`{name}` works for a weight in {variable.dtype}"):
            value, again = (tf.convert_to_tensor(method(variable, step)) for _ in range(2))
        got, expected = (tuple(value.shape), value.dtype.name), (tuple(variable.shape), variable.dtype)
        assert got == expected, f"`{name}` does not keep shape and dtype: {expected} became {got}"
        values += [value.numpy(), again.numpy()]
    off = [v.name for v in trial.optimizer.variables if v.dtype == "int32"]
    assert not off, f"{off[0]} is int32, which programs on a GPU do not find in its memory: take int64"
    after = {**trial.weights(), "the rule's state": trial.state()}
    for path, value in before.items():
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(value, after[path], strict=True))
        assert same, f"`{name}` changes {path}: it must be pure, and only return a value"
    for one, other in zip(values[::2], values[1::2], strict=True):
        assert np.array_equal(one, other), (
            f"two calls of `{name}` with the same weight and step differ: draw with `self.normal`, and keep "
            f"state in `self.add_variable`"
        )
    with _holds("`observe` works"):
        now = [keras.ops.copy(v) for v in rule.variables]
        measured = set(rule.observe(now, now, step))
    assert measured == set(rule.metric_names), (
        f"`observe` returns {sorted(measured)}, and `metric_names` are {sorted(rule.metric_names)}"
    )


def _check_run(trial: _Trial, mode: str) -> None:
    """One iteration without learning, in which only the rule writes, and two with."""
    before = trial.weights()
    with _holds(f"the rule works {mode}"):
        trial.iterate()
        after = trial.weights()
        trial.optimizer.learning_rate = 0.1
        trial.iterate()
        trial.iterate()
    kept = not trial.rule.placement.startswith("during_")
    chosen = {v.path for v in trial.rule.variables} if kept else set()
    why = "is not selected, and changes" if kept else "does not come back to the last bit"
    for path in before.keys() - chosen:
        assert np.array_equal(before[path], after[path]), f"{path} {why} {mode}"
    for name, value in trial.optimizer.metrics().items():
        assert np.isfinite(float(value)), f"the metric {name!r} is {float(value)} {mode}"


def _check_same(trial: _Trial, eager: _Trial, mode: str) -> None:
    for path, value in trial.weights().items():
        difference = float(np.max(np.abs(value - eager.weights()[path])))
        assert difference <= TOLERANCE, (
            f"{path} differs by {difference:.2g} {mode} and in eager mode: a rule may keep no state of "
            f"Python's, which a graph freezes"
        )
    for value, expected in zip(trial.state(), eager.state(), strict=True):
        close = np.allclose(value, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        assert close, f"the rule's state is another one {mode} than in eager mode: {value} and {expected}"


def _check_saving(trial: _Trial) -> None:
    with tempfile.TemporaryDirectory() as folder, _holds("a model with the rule is saved and loaded"):
        path = Path(folder) / "model.keras"
        trial.model.save(path)
        twin = _Trial.loaded(path, trial.feedback)
    assert isinstance(twin.optimizer, InterventionOptimizer), "the loaded model lost its interventions"
    for value, loaded in zip(trial.state(), twin.state(), strict=True):
        assert np.array_equal(value, loaded, equal_nan=True), (
            f"the rule's state is not saved: {value} became {loaded}"
        )
    trial.iterate()
    twin.iterate()
    for one, other in zip(trial.weights().values(), twin.weights().values(), strict=True):
        assert np.array_equal(one, other), "a loaded model goes on differently: some state is not saved"
