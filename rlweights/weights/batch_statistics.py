"""Statistics of batch normalization that fit the weights that are evaluated."""

import math
from typing import Any

import keras

from rlweights.weights.keras_internals import layers_of


def renew_batch_statistics(model: Any, x: Any, batch_size: int = 32) -> Any:
    """Measures the means and variances of batch normalization anew, with the weights that a model has now.

    An average of weights, and weights that were rounded, have other activations than those that were trained.
    Call it after `rlweights.strip`, or in `with optimizer.evaluation():`. The statistics become the plain
    means over all batches, each of which the model is called on as in training.

    Args:
        model: A Keras model.
        x: Its inputs [N, ...], an array or a nest of arrays: training data.
        batch_size: Size of a batch; batches count alike.

    Returns:
        The same model.

    Raises:
        ValueError: If the model has no batch normalization, or `x` is empty.

    Reference: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018,
    https://arxiv.org/abs/1803.05407, algorithm 1, last line.
    """
    layers = [each for each in layers_of(model) if isinstance(each, keras.layers.BatchNormalization)]
    if not layers:
        raise ValueError(f"{model.name} has no BatchNormalization")
    count = math.ceil(len(keras.tree.flatten(x)[0]) / batch_size)
    if not count:
        raise ValueError("`x` has no samples to measure statistics on")
    momenta = [layer.momentum for layer in layers]
    try:
        for i in range(count):
            for layer in layers:
                layer.momentum = i / (i + 1)  # the first batch replaces what was there
            part = slice(i * batch_size, (i + 1) * batch_size)
            model(keras.tree.map_structure(lambda each, part=part: each[part], x), training=True)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    return model
