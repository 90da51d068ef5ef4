"""Exports a run's policy: `python -m rlweights.export RUN policy.keras`."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from rlweights.startup import settle

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

TOLERANCE = 1e-5


@app.command(name="export")
def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    target: Annotated[Path, typer.Argument(help="A .keras or .tflite file, or a folder for a SavedModel.")],
    which: Annotated[str, typer.Option("--weights", help="best or latest.")] = "best",
) -> None:
    """Export a run's policy: observations in, distribution parameters out, normalisation included.

    The exported model is loaded again and must act as the agent does; otherwise nothing is left behind.
    """
    settle()
    from rlweights.guarded import guarded
    from rlweights.trained import TrainedAgent

    def session() -> int:
        agent = TrainedAgent(run, which)
        write(agent, target)
        typer.echo(f"wrote {target}: acts as {agent.weights} does")
        return 0

    raise typer.Exit(guarded(session))


def write(agent: Any, target: Path) -> None:
    """Writes the policy of a `TrainedAgent` and checks that it acts identically when loaded.

    Raises:
        ConfigError: If the target's kind is unknown, exists already, cannot be written or acts differently.
    """
    import numpy as np

    from rlweights.config import ConfigError

    if target.exists():
        raise ConfigError(f"{target}: exists already")
    encoder = agent.assembly.encoder
    rng = np.random.default_rng(0)
    if encoder.is_image:
        observations = rng.integers(0, 256, (16, *encoder.shape), dtype=np.uint8)
    else:
        observations = rng.standard_normal((16, *encoder.shape), dtype=np.float32)
    wanted = np.asarray(agent.assembly.networks.policy(observations))
    model = _functional(agent)
    writers = {".keras": _keras, ".tflite": _tflite, "": _saved_model}
    if target.suffix not in writers:
        raise ConfigError(f"{target}: takes a .keras or .tflite file, or a folder without a suffix")
    try:
        got = writers[target.suffix](model, target, observations)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from None
    difference = float(np.max(np.abs(got - wanted)))
    if not difference <= TOLERANCE:
        _remove(target)
        raise ConfigError(f"{target}: the exported model differs from the agent by {difference:.2g}")


def _functional(agent: Any) -> Any:
    """The policy as a functional model of Keras' own layers, which loads without rlweights."""
    import keras

    encoder = agent.assembly.encoder
    inputs = keras.Input(encoder.shape, dtype=encoder.dtype, name="observations")
    policy, trunk = agent.assembly.networks.policy, agent.assembly.networks.policy.trunk
    x = inputs
    if trunk.normalization is not None:
        mean, inverse, limit = trunk.normalization.numpy_scale()
        scale = keras.layers.Rescaling(inverse, -mean * inverse, name="normalization")
        x = scale(x)
        x = keras.layers.ReLU(max_value=2 * limit, name="upper")(
            keras.layers.Rescaling(1.0, limit, name="shift")(x)
        )
        x = keras.layers.Rescaling(1.0, -limit, name="shift_back")(x)
    if trunk.convolutions:
        x = keras.layers.Rescaling(1 / 255, name="scale")(x)
        for layer in trunk.convolutions:
            x = keras.layers.Activation(trunk.activation, name=f"{layer.name}_activation")(_copy(layer)(x))
        x = keras.layers.Flatten(name="flat")(x)
    for layer, norm in zip(trunk.hidden, trunk.norms, strict=True):
        x = _copy(layer)(x)
        if norm is not None:
            x = _copy(norm)(x)
        x = keras.layers.Activation(trunk.activation, name=f"{layer.name}_activation")(x)
    outputs = _copy(policy.head)(x)
    if policy.log_std is not None:
        size = policy.outputs
        spread = keras.layers.Dense(size, name="log_std", kernel_initializer="zeros")
        outputs = keras.layers.Concatenate(name="parameters")([outputs, spread(outputs)])
        spread.bias.assign(policy.log_std)
    model = keras.Model(inputs, outputs, name="policy")
    _fill(model, policy)
    return model


def _copy(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _fill(model: Any, policy: Any) -> None:
    """Copies the weights of every layer by its name."""
    trunk = policy.trunk
    originals = [*trunk.convolutions, *trunk.hidden, *[n for n in trunk.norms if n is not None], policy.head]
    for layer in originals:
        model.get_layer(layer.name).set_weights(layer.get_weights())


def _keras(model: Any, target: Path, observations: Any) -> Any:
    import keras
    import numpy as np

    model.save(target)
    return np.asarray(keras.saving.load_model(target)(observations))


def _saved_model(model: Any, target: Path, observations: Any) -> Any:
    import numpy as np
    import tensorflow as tf

    model.export(target, format="tf_saved_model", verbose=False)
    loaded = tf.saved_model.load(str(target))  # held in a name: its functions do not keep its variables
    return np.asarray(loaded.serve(observations))


def _tflite(model: Any, target: Path, observations: Any) -> Any:
    import numpy as np
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()):  # the converter prints what it does
        data = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    target.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter moves to a package of its own one day
        interpreter = tf.lite.Interpreter(model_content=data)
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(entry["index"], observations.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], observations)
    interpreter.invoke()
    return np.asarray(interpreter.get_tensor(result["index"]))


def _remove(target: Path) -> None:
    import shutil

    shutil.rmtree(target, ignore_errors=True) if target.is_dir() else target.unlink(missing_ok=True)


def main() -> None:
    """Runs the command line."""
    app()


if __name__ == "__main__":
    main()
