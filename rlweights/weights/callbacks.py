"""Interventions in `model.fit`: the Keras callback that makes every epoch an iteration."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from rlweights.weights import diagnostics
from rlweights.weights.attachment import attach, build_early, optimizers_of
from rlweights.weights.keras_internals import layers_of, own_trainable_variables
from rlweights.weights.layers import Anatomy
from rlweights.weights.optimizer import InterventionOptimizer
from rlweights.weights.selection import owner_of

_SCORE = "dormant_score/"


class WeightMonitor(keras.callbacks.Callback):
    """Makes every epoch an iteration, validates with the averaged weights, and logs what the rules measure.

    * An iteration begins with each epoch and ends with it, so "during_iteration" rules draw once an epoch and
      "after_iteration" rules act between two of them. An iteration that an error left open ends without
      them when the next `fit` begins.
    * The model's own weights are clean whenever none of its training steps runs: for `evaluate`, `predict`
      and `save`, for callbacks in any order, and after an error or an interrupt. Training with and without
      validation gives the same weights, bit for bit.
    * Where a rule keeps an average (`Averaging`), validation sees it, and it stays in the weights until the
      next epoch begins: what `EarlyStopping` and `ModelCheckpoint` keep is what was judged.
    * At the end of each epoch `logs`, hence the history, TensorBoard and CSV, receive
      `intervention/<rule>/<metric>` and, of the clean kernels, `weights/<layer>/norm`, `rms` and `max`.
      Put it first in `callbacks`, so that later ones see these logs.

    A model may hold several optimizers with rules (a GAN, a `MultiOptimizer`): each gets its iterations, and
    the metrics are named `intervention/<attribute>/<rule>/<metric>`.

    Args:
        probe: A batch of inputs of the model. Needed if a rule reads feedback named
            "dormant_score/<layer path>" (`Recycling`): at the end of each epoch it is filled in from what
            these layers return for these inputs, with the clean weights. A layer's activation must be its
            own (`Dense(64, "relu")`), not a layer behind it.
        keep_judged: Whether the weights of the validation stay in until the next epoch begins. False: they
            are there for the validation only, and checkpoints hold what training goes on with.
        per_layer: Whether to log the kernels of each layer; False: all of them as one, `weights/norm`; None:
            each layer if there are no more than eight.

    Examples:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile(InterventionOptimizer(keras.optimizers.SGD(), []), "mse")
        >>> history = model.fit(
        ...     keras.ops.ones([4, 2]), keras.ops.ones([4, 1]), verbose=0, callbacks=[WeightMonitor()]
        ... )
        >>> [name.rpartition("/")[2] for name in history.history]
        ['loss', 'norm', 'rms', 'max']
    """

    def __init__(self, probe: Any = None, *, keep_judged: bool = True, per_layer: bool | None = None):
        super().__init__()
        self.probe = probe
        self.keep_judged = keep_judged
        self.per_layer = per_layer
        self._in_epoch = False
        self._put_in: list[InterventionOptimizer] = []

    # What Keras calls -----------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks the optimizer before anything is trained, and ends what an interrupted `fit` left open.

        Raises:
            ValueError: If the model carries no interventions.
        """
        attach(self.model)
        for optimizer in optimizers_of(self.model).values():
            optimizer.abandon_iteration()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begins an iteration.

        Raises:
            ValueError: If a rule needs a probe and there is none.
        """
        build_early(self.model)
        for optimizer in optimizers_of(self.model).values():
            self._demand_probe(optimizer)
            optimizer.begin_iteration()
        self._in_epoch = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends the iteration, and adds what was measured to `logs`."""
        self._in_epoch = False
        optimizers = optimizers_of(self.model)
        measured: dict[str, Any] = {}
        judged = [each for each in optimizers.values() if each.holds and each.release()]
        for name, optimizer in optimizers.items():
            self._demand_probe(optimizer)  # again, because a model may build itself in its first step
            if wanted := _scored_layers(optimizer):
                for layer, values in _dormant_scores(self.model, wanted, self.probe).items():
                    optimizer.feedback[_SCORE + layer] = values
            optimizer.end_iteration()
            prefix = "intervention" if len(optimizers) == 1 else f"intervention/{name}"
            measured |= {f"{prefix}/{metric}": value for metric, value in optimizer.metrics().items()}
        if logs is not None:
            measured |= _measured(self.model, self.per_layer)
            logs.update({name: float(ops.convert_to_numpy(value)) for name, value in measured.items()})
        for optimizer in judged:
            optimizer.hold()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights for evaluation in."""
        attach(self.model)
        # What another validation left in stays in.
        self._put_in = [each for each in optimizers_of(self.model).values() if not each.holds]
        for optimizer in self._put_in:
            optimizer.hold()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights for training in again, unless what was judged is to be kept."""
        if not (self.keep_judged and self._in_epoch):
            self.on_predict_end()

    on_predict_begin = on_test_begin

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Puts the weights for training in again, where this evaluation has taken them out."""
        for optimizer in self._put_in:
            optimizer.release()
        self._put_in = []

    def _demand_probe(self, optimizer: InterventionOptimizer) -> None:
        wanted = _scored_layers(optimizer)
        if wanted and self.probe is None:
            raise ValueError(
                f"a rule reads the dormant scores of {', '.join(sorted(wanted))}: pass a batch of inputs on "
                f"which to measure them, `WeightMonitor(probe=x[:256])`"
            )


# Measuring ------------------------------------------------------------------------------------------


_FEW_LAYERS = 8


def _measured(model: Any, per_layer: bool | None) -> dict[str, Any]:
    """Norm, root mean square and maximum of the trainable kernels: of each layer, or of all of them."""
    kernels: dict[str, list[Any]] = {}
    anatomy = Anatomy(model.trainable_variables)
    for variable in model.trainable_variables:
        if anatomy.is_kernel(variable):
            kernels.setdefault(f"weights/{anatomy.layer_name(variable)}", []).append(variable.value)
    if per_layer is False or (per_layer is None and len(kernels) > _FEW_LAYERS):
        kernels = {"weights": [value for values in kernels.values() for value in values]}
    found = {}
    for name, values in kernels.items():
        found[f"{name}/norm"] = diagnostics.weight_norm(values)
        found[f"{name}/rms"] = diagnostics.weight_rms(values)
        found[f"{name}/max"] = diagnostics.weight_max(values)
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
    return {name: diagnostics.dormant_scores(ops.concatenate(outputs[name])) for name in wanted}


@contextlib.contextmanager
def _recording(layers: Mapping[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """Records the outputs [samples, units] of layers: in any model, whether it has a graph or not."""
    outputs: dict[str, list[Any]] = {}

    def recorder(path: str, call: Callable) -> Callable:
        def record(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            outputs.setdefault(path, []).append(ops.reshape(output, [-1, output.shape[-1]]))
            return output

        return record

    for path, layer in layers.items():
        layer.call = recorder(path, layer.call)
    try:
        yield outputs
    finally:
        for layer in layers.values():
            del layer.call  # uncovers the method of the class
