"""Exported policies: Keras, SavedModel, LiteRT and ONNX files, each checked before it gets its name."""

import contextlib
import io
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

TOLERANCE = 1e-5
"""Largest difference between outputs of export and agent, relative to the largest output above 1."""


def write(agent: Any, target: Path) -> None:
    """Writes the policy of a `TrainedAgent` and checks that it acts identically when loaded.

    Raises:
        ConfigError: If the target's kind is unknown or needs an extra that is not installed; if the target
            exists already or cannot be written; if the exported model acts differently.
    """
    import numpy as np

    from rlweights.errors import ConfigError

    writers = {".keras": _keras, ".tflite": _tflite, ".onnx": _onnx, "": _saved_model}
    if target.suffix not in writers:
        raise ConfigError(f"{target}: takes a .keras, .tflite or .onnx file, or a folder without a suffix")
    if target.exists():
        raise ConfigError(f"{target}: exists already")
    batch = _inputs(agent)
    wanted = np.asarray(agent.policy.networks.policy(_whole(batch)))
    model = _functional(agent)
    try:
        # Only a model that was checked gets the target's name, whatever fails before.
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=target.parent) as folder:
            written = Path(folder) / target.name
            got = writers[target.suffix](model, written, batch)
            difference = float(np.max(np.abs(got - wanted)))
            if not difference <= TOLERANCE * max(1.0, float(np.max(np.abs(wanted)))):
                raise ConfigError(f"{target}: the exported model differs from the agent by {difference:.2g}")
            os.replace(written, target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from None


def _inputs(agent: Any) -> list[Any]:
    """A batch on which agent and export are compared: observations, and masks if the agent takes them."""
    import numpy as np

    rng = np.random.default_rng(0)
    observations, masking = _observations(agent, rng), agent.policy.masking
    if masking is None:
        return [observations]
    masks = rng.random((len(observations), masking.size)) < 0.5
    masks[:, np.cumsum([0, *masking.counts[:-1]])] = True  # each part allows its first action at least
    return [observations, masks]


def _whole(batch: list[Any]) -> Any:
    """The inputs as the agent's own networks take them: masks behind observations."""
    import numpy as np

    observations = batch[0]
    if len(batch) == 1:
        return observations
    flat = observations.reshape(len(observations), -1)
    return np.concatenate([flat, batch[1].astype(flat.dtype)], axis=1)


def _called(batch: list[Any]) -> Any:
    """The inputs as Keras' models take them."""
    return batch[0] if len(batch) == 1 else batch


def _observations(agent: Any, rng: Any) -> Any:
    """Observations without masks: pixels, or numbers of the scale that the agent has seen."""
    import numpy as np

    encoder, normalization = agent.policy.unmasked, agent.policy.networks.normalization
    if encoder.dtype == "uint8":
        return rng.integers(0, 256, (16, *encoder.shape), dtype=np.uint8)
    observations = rng.standard_normal((16, *encoder.shape), dtype=np.float32)
    if normalization is not None:
        observations[12:] *= 20  # beyond the limit to which normalized observations are clipped
        mean, inverse, _ = normalization.numpy_scale()
        observations = mean + observations / inverse
    for part in encoder.parts:
        if part.kind == "index":
            observations[:, part.start : part.end] = rng.integers(0, part.counts, (16, part.size))
    return observations


def _functional(agent: Any) -> Any:
    """The policy as a functional model of Keras' layers, which loads without rlweights."""
    import keras

    from rlweights.learning.masking import FORBIDDEN

    encoder, masking = agent.policy.unmasked, agent.policy.masking
    inputs = keras.Input(encoder.shape, dtype=encoder.dtype, name="observations")
    policy, trunk = agent.policy.networks.policy, agent.policy.networks.policy.trunk
    x = inputs
    if trunk.normalization is not None:
        mean, inverse, limit = trunk.normalization.numpy_scale()
        # Not Keras' own Normalization: its constants would be inputs of an ONNX model.
        x = keras.layers.Rescaling(1.0, (-mean).tolist(), name="centre")(x)
        x = keras.layers.Rescaling(inverse.tolist(), name="normalize")(x)
        x = keras.ops.clip(x, -limit, limit)
    x = _hidden(trunk, x, inputs)
    outputs = _copy(policy.head)(x)
    if policy.log_std is not None:
        size = policy.outputs
        spread = keras.layers.Dense(size, name="log_std", kernel_initializer="zeros")
        outputs = keras.layers.Concatenate(name="parameters")([outputs, spread(outputs)])
        spread.bias.assign(policy.log_std)
    entries: list[Any] = [inputs]
    if masking is not None:
        entries.append(keras.Input((masking.size,), dtype="bool", name="action_mask"))
        outputs = keras.ops.where(entries[1], outputs, FORBIDDEN)
    model = keras.Model(_called(entries), outputs, name="policy")
    _fill(model, policy)
    return model


def _hidden(trunk: Any, x: Any, inputs: Any) -> Any:
    """The trunk's layers, the user's as they are; images are scaled unless normalized.

    Args:
        trunk: The trunk.
        x: Observations, normalized if the agent normalizes them.
        inputs: Observations as they came, for indices.
    """
    import keras

    from rlweights.learning.networks import CustomTrunk

    if trunk.normalization is None and x.dtype == "uint8":
        low, factor = trunk.pixels
        x = keras.layers.Rescaling(factor, -low * factor, name="scale")(x)
    if isinstance(trunk, CustomTrunk):
        return trunk.model(trunk.divided_up(x, inputs))
    if trunk.parts:
        x = _joined(trunk, x, inputs)
    elif trunk.convolutions:
        x = _convolved(trunk, trunk.convolutions, x, "flat")
    for layer, norm in zip(trunk.hidden, trunk.norms, strict=True):
        x = _copy(layer)(x)
        if norm is not None:
            x = _copy(norm)(x)
        x = keras.layers.Activation(trunk.activation, name=f"{layer.name}_activation")(x)
    return x


def _convolved(trunk: Any, layers: Any, x: Any, name: str) -> Any:
    import keras

    for layer in layers:
        x = keras.layers.Activation(trunk.activation, name=f"{layer.name}_activation")(_copy(layer)(x))
    return keras.layers.Flatten(name=name)(x)


def _joined(trunk: Any, x: Any, inputs: Any) -> Any:
    """The parts of flat observations beside each other, as the trunk has them, of Keras' own layers."""
    import keras

    found = []
    for i, part in enumerate(trunk.parts):
        piece = (inputs if part.kind == "index" else x)[:, part.start : part.end]
        if part.kind == "image":
            piece = keras.layers.Reshape(part.shape, name=f"image_{i}")(piece)
            piece = _convolved(trunk, trunk.branches[part.name], piece, f"flat_{i}")
        elif part.kind == "index":
            table = trunk.tables[part.name]
            if len(part.counts) > 1:
                piece = keras.layers.Rescaling(1.0, table.firsts.tolist(), name=f"rows_{i}")(piece)
            rows, width = table.embeddings.shape
            piece = keras.layers.Embedding(rows, width, name=table.name)(piece)
            piece = keras.layers.Flatten(name=f"flat_{i}")(piece)
        found.append(piece)
    return found[0] if len(found) == 1 else keras.layers.Concatenate(name="joined")(found)


def _copy(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _fill(model: Any, policy: Any) -> None:
    """Copies the weights of every layer by its name."""
    from rlweights.learning.networks import Trunk

    trunk, own = policy.trunk, []  # the user's model is not copied, but taken as it is
    if isinstance(trunk, Trunk):
        norms = [n for n in trunk.norms if n is not None]
        own = [*trunk.convolutions, *trunk.tables.values(), *trunk.hidden, *norms]
    for layer in [*own, policy.head]:
        model.get_layer(layer.name).set_weights(layer.get_weights())


def _keras(model: Any, target: Path, batch: list[Any]) -> Any:
    import keras
    import numpy as np

    from rlweights.errors import ConfigError

    model.save(target)
    try:
        loaded: Any = keras.saving.load_model(target)
    except (TypeError, ValueError):  # a class of the user that is not registered with Keras
        why = "the file needs classes of your own to load; export a SavedModel, a folder without a suffix"
        raise ConfigError(f"{target.name}: {why}") from None
    return np.asarray(loaded(_called(batch)))


def _saved_model(model: Any, target: Path, batch: list[Any]) -> Any:
    import numpy as np
    import tensorflow as tf

    model.export(target, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(target))  # held in a name: its functions do not keep its variables
    return np.asarray(loaded.serve(_called(batch)))


def _tflite(model: Any, target: Path, batch: list[Any]) -> Any:
    import numpy as np
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):  # the converter prints what it does
        data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    target.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter will move to another package
        interpreter = tf.lite.Interpreter(model_content=data)
    entries = sorted(interpreter.get_input_details(), key=lambda entry: "action_mask" in entry["name"])
    for entry, array in zip(entries, batch, strict=True):
        interpreter.resize_tensor_input(entry["index"], array.shape)
    interpreter.allocate_tensors()
    for entry, array in zip(entries, batch, strict=True):
        interpreter.set_tensor(entry["index"], array)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))


def _onnx(model: Any, target: Path, batch: list[Any]) -> Any:
    import numpy as np

    from rlweights.errors import ConfigError
    from rlweights.running.config.messages import missing

    try:
        import onnxruntime
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{target}: {missing(str(error.name), 'onnx')}") from None
    model(_called(batch))  # Keras exports only what was called
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the converter asks NumPy for names of the past
        model.export(target, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
    entries = sorted(session.get_inputs(), key=lambda entry: "action_mask" in entry.name)
    named = {entry.name: array for entry, array in zip(entries, batch, strict=True)}
    return np.asarray(session.run(None, named)[0])
