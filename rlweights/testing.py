"""The battery that every rule must pass; for a rule of your own it is one line: `check(MyRule(0.1))`."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rlweights.weights import backend
from rlweights.weights.arrays import Scalar
from rlweights.weights.backend import ops
from rlweights.weights.callbacks import WeightMonitor
from rlweights.weights.interventions.base import Intervention
from rlweights.weights.optimizer import InterventionOptimizer

STEPS = 2
"""Optimizer steps of one iteration."""
TOLERANCE = 1e-5


def check(rule: Intervention | Callable[[], Intervention], feedback: Mapping[str, Any] | None = None) -> None:
    """Checks that a rule keeps what every rule promises.

    * `update` or `delta` keeps shape and dtype (float32, bfloat16, float16), changes nothing by itself, and
      gives the same value for the same weight and step: no randomness or state of Python's or NumPy's.
    * Eager mode, a graph and XLA agree to 1e-5, over iterations of several steps; each is traced once. (On
      JAX: steps that are compiled and steps that are not; on PyTorch there is one mode.)
    * Nothing but the selected weights is touched, and a placement that is undone leaves every weight as it
      was, to the last bit.
    * Metrics are those that the rule names, and finite; no state lies in the memory of a weight.
    * All that holds in a larger model with attention, a recurrent layer and many weights, unless the rule
      refuses it by name; under gradient accumulation, where two micro batches are one step; on two replicas,
      if TensorFlow has two devices; and after an error in the middle of an epoch of `fit`.
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
    for mode in backend.MODES:
        trial = _Trial(make(), feedback)
        with _holds(f"the rule works {mode}"):
            trial.compile(mode)
        _check_run(trial, mode)
        assert trial.traces == 1, f"the iteration is traced {trial.traces} times {mode}, and not once"
        _check_same(trial, eager, mode)
    if isinstance(rule, Intervention):
        _check_saving(eager)
    _check_large(make, feedback)
    _check_accumulation(make, feedback)
    _check_error_in_fit(make, feedback)
    check_replicas(rule, feedback)


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

    def __init__(
        self,
        rule: Intervention,
        feedback: Mapping[str, Any],
        dtype: str = "float32",
        *,
        large: bool = False,
        micro_batches: int | None = None,
    ):
        # Linear: it magnifies no rounding.
        inner = keras.optimizers.SGD(0.0, momentum=0.9, gradient_accumulation_steps=micro_batches, name="sgd")
        self.optimizer = InterventionOptimizer(inner, [rule], name="interventions")
        self.model = _large_model() if large else _model(dtype)
        self.inputs = _SEQUENCES if large else _INPUTS
        self.micro_batches = micro_batches or 1
        self.traces = 0
        self._iteration: Callable[[], Any] = self._written
        self.model.compile(optimizer=self.optimizer, loss="mse", run_eagerly=True)
        self.optimizer.build(self.model.trainable_variables)
        self.feedback = {k: v for k, v in feedback.items() if not large or k in self.optimizer.feedback}
        self.write()

    @classmethod
    def loaded(cls, path: Path, feedback: Mapping[str, Any]) -> "_Trial":
        """A trial that goes on with a model from a file."""
        self = cls.__new__(cls)
        self.model = keras.saving.load_model(path)
        self.optimizer, self.feedback = self.model.optimizer, feedback
        self.inputs, self.micro_batches = _INPUTS, 1
        self.model.compile(optimizer=self.optimizer, loss="mse", run_eagerly=True)
        self._iteration = self._written
        return self

    @property
    def rule(self) -> Intervention:
        return self.optimizer.interventions[0]

    def compile(self, mode: str) -> None:
        """Compiles the whole iteration, or where Keras compiles only steps, these."""

        def counted(function: Callable) -> Callable:
            def count(*args: Any) -> Any:
                self.traces += 1
                return function(*args)

            return count

        if backend.NAME == "tensorflow":
            from rlweights.weights.compilation import compiled

            self._iteration = compiled(counted(self._written), xla=mode == "under XLA")
        else:
            self.model.train_step = counted(self.model.train_step)
            self.model.compile(optimizer=self.optimizer, loss="mse", jit_compile=True)

    def write(self) -> None:
        for name, value in self.feedback.items():
            self.optimizer.feedback[name] = value

    def iterate(self) -> None:
        self.write()
        self._iteration()

    def weights(self) -> dict[str, np.ndarray]:
        return {v.path: _array(v) for v in self.model.trainable_variables}

    def state(self) -> list[np.ndarray]:
        """What optimizer and rule remember, but for the metrics."""
        measured = {id(v) for v in self.rule.metrics.values()}
        return [_array(v) for v in self.optimizer.variables if id(v) not in measured]

    def variables(self) -> list[Any]:
        return [*self.model.trainable_variables, *self.optimizer.variables]

    def _written(self) -> None:
        self.optimizer.begin_iteration()
        steps = STEPS * self.micro_batches
        if backend.NAME == "tensorflow":
            ops.while_loop(lambda i: i < steps, lambda i: (i + self.step(),), [ops.zeros([], "int32")])
        else:
            for _ in range(steps):
                self.model.train_on_batch(self.inputs, _TARGETS)
        self.optimizer.end_iteration()

    def step(self, share: float = 1.0) -> int:
        """One step on TensorFlow, whose loss may be a replica's share of the whole."""
        import tensorflow as tf

        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = share * ops.mean(ops.square(self.model(self.inputs) - _TARGETS))
        gradients: Any = tape.gradient(loss, [v.value for v in variables])  # pyright: ignore[reportCallIssue]
        self.optimizer.apply(gradients, variables)
        return 1


_INPUTS = np.linspace(-1.0, 1.0, 32, dtype=np.float32).reshape(8, 4)
_SEQUENCES = np.linspace(-1.0, 1.0, 160, dtype=np.float32).reshape(8, 5, 4)
_TARGETS = np.full((8, 3), 0.5, np.float32)


def _array(value: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(value))


def _dense(units: int, name: str, seed: Scalar, dtype: str = "float32") -> Any:
    initializer = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(units, "tanh", kernel_initializer=initializer, dtype=dtype, name=name)


def _model(dtype: str) -> Any:
    """Two layers and a normalization between them, with the same weights each time."""
    norm = keras.layers.LayerNormalization(dtype=dtype, name="norm")
    hidden, head = _dense(6, "hidden", 0, dtype), _dense(3, "head", 1, dtype)
    return keras.Sequential([keras.Input((4,)), hidden, norm, head], name="model")


def _large_model() -> Any:
    """Attention, a recurrent layer and many more around the layers of the small model."""
    x = inputs = keras.Input((5, 4))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.GRU(4, name="recurrent")(x)
    for number in range(_MANY):
        x = _dense(4, f"dense_{number}", 2 + number)(x)
    x = _dense(6, "hidden", 0)(x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, _dense(3, "head", 1)(x), name="model")


_MANY = 12


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
            value, again = (ops.convert_to_tensor(method(variable, step)) for _ in range(2))
        got = (tuple(value.shape), keras.backend.standardize_dtype(value.dtype))
        expected = (tuple(variable.shape), variable.dtype)
        assert got == expected, f"`{name}` does not keep shape and dtype: {expected} became {got}"
        values += [_array(value), _array(again)]
    integer = keras.backend.standardize_dtype("int")
    off = [v.name for v in trial.optimizer.variables if v.dtype == "int32" != integer]
    assert not off, f"{off[0]} is int32, which programs on a GPU do not find in its memory: take 'int'"
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
        assert np.isfinite(_array(value)), f"the metric {name!r} is {_array(value)} {mode}"
    places = [(backend.address(v), v.path) for v in trial.variables() if 0 not in v.shape]
    for i, (place, path) in enumerate(places):
        others = [other for same, other in places[:i] if place is not None and same == place]
        assert not others, f"{path} and {others[0]} are one piece of memory: begin state with a copy"


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


def _unless_refused(make: Callable[[], Intervention], **kwargs: Any) -> _Trial | None:
    try:
        return _Trial(make(), **kwargs)
    except ValueError:  # what a rule cannot do it says when it is built
        return None


def _check_large(make: Callable[[], Intervention], feedback: Mapping[str, Any]) -> None:
    if trial := _unless_refused(make, feedback=feedback, large=True):
        if backend.COMPILES_EACH_OPERATION:
            trial.compile(backend.MODES[0])
        _check_run(trial, "in a model with attention, recurrence and many weights")


def _check_accumulation(make: Callable[[], Intervention], feedback: Mapping[str, Any]) -> None:
    """Two micro batches of the same data are one step, and count as one."""
    mode = "under gradient accumulation"
    trial = _unless_refused(make, feedback=feedback, micro_batches=2)
    if trial is None:
        return
    if trial.rule.placement == "during_gradient":  # draws for each micro batch
        _check_run(trial, mode)
        return
    plain = _Trial(make(), feedback)
    for each in (trial, plain):
        each.optimizer.learning_rate = 0.1
        with _holds(f"the rule works {mode}"):
            each.iterate()
    for path, value in trial.weights().items():
        difference = float(np.max(np.abs(value - plain.weights()[path])))
        assert difference <= TOLERANCE, f"{path} differs by {difference:.2g} {mode} and without"


class _Unforeseen(Exception):
    """What a callback raises in the middle of an epoch."""


class _Raises(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise _Unforeseen


def _check_error_in_fit(make: Callable[[], Intervention], feedback: Mapping[str, Any]) -> None:
    """An error in `fit` leaves clean weights, and the next `fit` begins anew."""
    trial = _Trial(make(), feedback)
    if backend.COMPILES_EACH_OPERATION:
        trial.compile(backend.MODES[0])
    before = trial.weights()
    settings: dict[str, Any] = {"batch_size": 4, "verbose": 0, "shuffle": False}
    with contextlib.suppress(_Unforeseen):
        monitor: list[Any] = [WeightMonitor(_INPUTS), _Raises()]
        trial.model.fit(_INPUTS, _TARGETS, callbacks=monitor, **settings)
    kept = not trial.rule.placement.startswith("during_")
    chosen = {v.path for v in trial.rule.variables} if kept else set()
    after = trial.weights()
    for path in before.keys() - chosen:
        assert np.array_equal(before[path], after[path]), f"{path} is not clean after an error in `fit`"
    with _holds("training goes on after an error in `fit`"):
        trial.model.fit(_INPUTS, _TARGETS, callbacks=[WeightMonitor(_INPUTS)], **settings)
    for path, value in trial.weights().items():
        assert np.all(np.isfinite(value)), f"{path} is not finite after an error in `fit`"


def check_replicas(
    rule: Intervention | Callable[[], Intervention], feedback: Mapping[str, Any] | None = None
) -> None:
    """Checks that a rule computes the same on two replicas, and what it computes on one device.

    Does nothing where TensorFlow has no two devices of a kind; processors may be divided into logical ones.

    Args:
        rule: As for `check`, which calls this, too.
        feedback: Values that are written before the iteration, by name.

    Raises:
        AssertionError: If replicas differ in one bit of weights or state, or from one device by above 1e-5.
    """
    devices = backend.devices()[:2]
    if len(devices) < 2:
        return
    import tensorflow as tf

    make, feedback = _maker(rule), dict(feedback or {})
    strategy = tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())
    with strategy.scope():
        several = _unless_refused(make, feedback=feedback)
    if several is None:
        return
    one = _Trial(make(), feedback)
    for trial in (one, several):
        trial.optimizer.learning_rate = 0.1
        trial.optimizer.begin_iteration()
        for _ in range(STEPS):
            if trial is one:
                trial.step()
            else:
                strategy.run(trial.step, (1.0 / len(devices),))
        trial.optimizer.end_iteration()
    for single, variable in zip(one.variables(), several.variables(), strict=True):
        first, second = (_array(each) for each in strategy.experimental_local_results(variable.value))
        assert first.tobytes() == second.tobytes(), f"{variable.path} differs on two replicas"
        expected = _array(single)
        close = np.allclose(first, expected, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        assert close, f"{variable.path} differs on two replicas and on one device: {first} and {expected}"
