"""The backend of Keras and the device: what is not there is refused in one line, whatever is said where."""

import json
import os
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from rlweights import backend
from rlweights.errors import BackendError
from support.commandline import process


def test_keras_with_another_backend(tmp_path):
    code, output, error = process("cartpole", folder=tmp_path, KERAS_BACKEND="jax")
    assert (code, output) == (2, "")
    assert error == (
        "error: agents run on Keras' TensorFlow backend, but KERAS_BACKEND is 'jax', on which only rules "
        "run; unset it or set KERAS_BACKEND=tensorflow\n"
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


@pytest.fixture
def machine(monkeypatch):
    """A machine with two GPUs, as TensorFlow tells of them; returns what was made visible."""
    gpus = [SimpleNamespace(name=f"/physical_device:GPU:{number}") for number in (0, 1)]
    visible = {"GPU": gpus}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: visible[kind])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda found, kind: visible.update({kind: found}))
    details = {"device_name": "NVIDIA X"}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: details)
    for name in ("XLA_FLAGS", "TF_XLA_FLAGS", "TF_FORCE_GPU_ALLOW_GROWTH", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(backend, "_graphics", lambda: "driver 1")
    return visible["GPU"], visible


@pytest.mark.parametrize(
    ("chosen", "numbers", "words"),
    [
        (None, [0, 1], "GPU 0, NVIDIA X"),
        ("gpu", [0], "GPU 0, NVIDIA X"),
        ("gpu:1", [1], "GPU 1, NVIDIA X"),
        ("cpu", [], "CPU, "),
    ],
)
def test_the_device_is_the_one_that_was_asked_for(machine, chosen, numbers, words):
    gpus, visible = machine
    backend.configure(chosen)
    assert visible["GPU"] == [gpus[number] for number in numbers]
    assert backend.device().startswith(words)
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["TF_XLA_FLAGS"].endswith("cache_device_types=CPU,GPU")
    assert ("--xla_gpu_deterministic_ops=true" in os.environ.get("XLA_FLAGS", "")) == (chosen != "cpu")


def test_what_the_user_has_set_for_xla_stays(machine, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false --xla_dump_to=x")
    backend.configure("gpu")
    assert os.environ["XLA_FLAGS"] == "--xla_gpu_deterministic_ops=false --xla_dump_to=x"


def test_a_device_that_is_not_there_is_refused(machine, monkeypatch):
    with pytest.raises(
        BackendError, match=r"^--device gpu:2: TensorFlow finds no such GPU; it finds 2 of them"
    ):
        backend.configure("gpu:2")
    with pytest.raises(BackendError, match=r"^--device tpu: takes cpu, gpu, or gpu:1 for one of several"):
        backend.configure("tpu")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(BackendError, match=r"it finds none; see pip install 'rlweights\[gpu\]'$"):
        backend.configure("gpu")


def test_a_device_is_chosen_before_tensorflow_works(machine, monkeypatch):
    def initialized(found, kind):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", initialized)
    with pytest.raises(BackendError, match="works in this process already; choose the device before that"):
        backend.configure("gpu:1")


def test_without_a_driver_xla_gets_no_flags_of_gpus(machine, monkeypatch):
    monkeypatch.setattr(backend, "_graphics", lambda: "")
    backend.configure()
    assert "XLA_FLAGS" not in os.environ


def test_a_python_that_lacks_packages_says_which_one_it_is_and_what_to_do(monkeypatch, capsys):
    backend.check_packages()
    monkeypatch.setattr(backend, "NEEDED", ("numpy", "no_such_package"))
    with pytest.raises(ModuleNotFoundError, match="lacks no_such_package, which rlweights needs: "):
        backend.check_packages()
    monkeypatch.setattr("sys.argv", ["-m", "x"])  # as `python -m` has it while it looks for the module
    with pytest.raises(SystemExit, match="2"):
        backend.check_packages()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {sys.executable} lacks no_such_package")
