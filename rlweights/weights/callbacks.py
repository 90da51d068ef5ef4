"""Interventions in `model.fit`: the Keras callback that makes every epoch an iteration."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from rlweights.weights import diagnostics
from rlweights.weights.keras_internals import layers_of, own_trainable_variables
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import owner_of

_SCORE = "dormant_score/"


class WeightMonitor(keras.callbacks.Callback):
    """Makes every epoch an iteration, validates with clean weights, and logs what the rules measure.

    * An iteration begins with each epoch and ends with it, so "during_iteration" rules draw once an epoch and
      "after_iteration" rules act between two of them.
    * Validation, `evaluate` and `predict` see the clean weights, or the averaged ones if a rule keeps an
      average. The weights are exchanged and nothing is drawn: training with and without validation gives
      the same weights, bit for bit.
    * At the end of each epoch `logs`, hence the history, TensorBoard and CSV, receive
      `intervention/<rule>/<metric>` and, of the clean kernels, `weights/<layer>/norm`, `rms` and `max`.

    Put it first in `callbacks`: later ones then see these logs, and save clean weights.

    Args:
        probe: A batch of inputs of the model. Needed if a rule reads feedback named
            "dormant_score/<layer path>" (`Recycling`): at the end of each epoch it is filled in from what
            these layers return for these inputs, with the clean weights. A layer's activation must be its
            own (`Dense(64, "relu")`), not a layer behind it.

    Examples:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(InterventionOptimizer(keras.optimizers.SGD(), []), "mse")
        >>> history = model.fit(tf.ones([4, 2]), tf.ones([4, 1]), verbose=0, callbacks=[WeightMonitor()])
        >>> [name.rpartition("/")[2] for name in history.history]
        ['loss', 'norm', 'rms', 'max']
    """

    def __init__(self, probe: Any = None):
        super().__init__()
        self.probe = probe
        self._exchange = contextlib.ExitStack()

    # What Keras calls -----------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the optimizer before anything is trained.

        Raises:
            ValueError: If the model's optimizer carries no interventions.
        """
        interventions_of(self.model)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an iteration.

        Raises:
            ValueError: If a rule needs a probe and there is none.
        """
        self._exchange.close()  # left open if the last validation was interrupted
        optimizer = interventions_of(self.model)
        if not optimizer.built and all(layer.built for layer in layers_of(self.model)):
            self.model.optimizer.build(self.model.trainable_variables)
        self._demand_probe(optimizer)
        optimizer.begin_iteration()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the iteration, and adds what was measured to `logs`."""
        optimizer = interventions_of(self.model)
        self._demand_probe(optimizer)  # again, because a model may build itself in its first step
        if wanted := _scored_layers(optimizer):
            with optimizer.clean():
                scores = _dormant_scores(self.model, wanted, self.probe)
            for name, values in scores.items():
                optimizer.feedback[_SCORE + name] = values
        optimizer.end_iteration()
        if logs is not None:
            metrics = optimizer.metrics()
            logs.update({f"intervention/{name}": float(value) for name, value in metrics.items()})
            logs.update({name: float(value) for name, value in _measured(self.model).items()})

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights for evaluation in."""
        self._exchange.enter_context(interventions_of(self.model).evaluation())

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights for training in again."""
        self._exchange.close()

    on_predict_begin = on_test_begin
    on_predict_end = on_test_end

    def _demand_probe(self, optimizer: InterventionOptimizer) -> None:
        wanted = _scored_layers(optimizer)
        if wanted and self.probe is None:
            raise ValueError(
                f"a rule reads the dormant scores of {', '.join(sorted(wanted))}: pass a batch of inputs on "
                f"which to measure them, `WeightMonitor(probe=x[:256])`"
            )


def interventions_of(model: Any) -> InterventionOptimizer:
    """Returns the `InterventionOptimizer` of a compiled model, which loss scaling may have wrapped.

    Raises:
        ValueError: If there is none.
    """
    optimizer = getattr(model, "optimizer", None)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    if isinstance(optimizer, InterventionOptimizer):
        return optimizer
    raise ValueError(
        f"the model's optimizer carries no interventions; compile it with "
        f"`InterventionOptimizer(inner, rules)`. Found: {type(optimizer).__name__}"
    )


# Measuring ------------------------------------------------------------------------------------------


def _measured(model: Any) -> dict[str, Any]:
    """Norm, root mean square and maximum of the trainable kernels of each layer."""
    kernels: dict[str, list[Any]] = {}
    for variable in model.trainable_variables:
        if len(variable.shape) >= 2:
            kernels.setdefault(owner_of(variable), []).append(variable.value)
    found = {}
    for layer, values in kernels.items():
        found[f"weights/{layer}/norm"] = diagnostics.weight_norm(values)
        found[f"weights/{layer}/rms"] = diagnostics.weight_rms(values)
        found[f"weights/{layer}/max"] = diagnostics.weight_max(values)
    return found


def _scored_layers(optimizer: InterventionOptimizer) -> set[str]:
    """The paths of the layers whose dormant scores a rule reads."""
    return {name.removeprefix(_SCORE) for name in optimizer.feedback if name.startswith(_SCORE)}


def _dormant_scores(model: Any, wanted: set[str], probe: Any) -> dict[str, Any]:
    """Returns the scores [units] of the layers `wanted`, by path.

    Raises:
        ValueError: If the model has no such layer, or does not call it for these inputs.
    """
    layers = {}
    for layer in layers_of(model):
        layers |= {owner_of(v): layer for v in own_trainable_variables(layer) if owner_of(v) in wanted}
    with _recording(layers) as outputs:
        model(probe, training=False)
    if missing := sorted(wanted - outputs.keys()):
        raise ValueError(f"the probe does not pass through {', '.join(missing)}")
    return {name: diagnostics.dormant_scores(tf.concat(outputs[name], axis=0)) for name in wanted}


@contextlib.contextmanager
def _recording(layers: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Records the outputs [samples, units] of layers: in any model, whether it has a graph or not."""
    outputs: dict[str, list[Any]] = {}

    def recorder(path: str, call: Callable) -> Callable:
        def record(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            outputs.setdefault(path, []).append(tf.reshape(output, [-1, output.shape[-1]]))
            return output

        return record

    for path, layer in layers.items():
        layer.call = recorder(path, layer.call)
    try:
        yield outputs
    finally:
        for layer in layers.values():
            del layer.call  # uncovers the method of the class
