"""The backend of Keras: another one is refused in one line, whatever is said where."""

import json

from support.commandline import process


def test_keras_with_another_backend(tmp_path):
    code, output, error = process("cartpole", folder=tmp_path, KERAS_BACKEND="jax")
    assert (code, output) == (2, "")
    assert error == (
        "error: rlweights runs on Keras' TensorFlow backend, but KERAS_BACKEND is 'jax'; "
        "unset it or set KERAS_BACKEND=tensorflow\n"
    )
    assert not list(tmp_path.iterdir())


def test_keras_settings_for_another_backend_do_not_matter(tmp_path):
    """`keras.json` is a default of all programs of the user; this one says what it needs."""
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    code, output, error = process("--env", "CartPole-v2", folder=tmp_path, KERAS_HOME=str(tmp_path))
    assert (code, output) == (2, "")
    assert error == (
        "error: --env CartPole-v2: environment.id = 'CartPole-v2': Gymnasium knows no such environment. "
        "Did you mean 'CartPole-v1'?\n"
    )
