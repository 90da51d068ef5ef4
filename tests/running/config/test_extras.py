"""Packages that are not installed: the message names the extra that brings them."""

import importlib
import sys

import pytest

from support.assemblies import refused


@pytest.mark.parametrize(
    ("name", "module", "package", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d", "pip install 'rlweights[box2d]'"),
        ("HalfCheetah-v5", "mujoco", "mujoco", "pip install 'rlweights[mujoco]'"),
    ],
)
def test_a_missing_extra_says_how_to_install_it(monkeypatch, name, module, package, extra):
    importlib.import_module("gymnasium.envs")
    for loaded in [each for each in sys.modules if each.startswith(f"gymnasium.envs.{package}")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    message = refused(f"environment.id={name}")
    assert message.startswith(f"environment.id = '{name}': ")
    assert "is not installed" in message
    assert message.endswith(extra)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("MiniGrid-Empty-5x5-v0", "minigrid", "minigrid"),
        ("minigrid:BabyAI-GoToObj-v0", "minigrid", "minigrid"),
    ],
)
def test_a_missing_package_of_a_family_names_the_extra(monkeypatch, name, module, extra):
    for loaded in [each for each in sys.modules if each.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    assert refused(f"environment.id={name}") == (
        f"environment.id = '{name}': {module} is not installed; pip install 'rlweights[{extra}]'"
    )
    wrapper = f"environment.wrappers=['{module}.wrappers:Some']"
    assert refused(wrapper).endswith(f": {module} is not installed; pip install 'rlweights[{extra}]'")


def test_missing_envpool_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "envpool", None)
    assert refused("environment.backend=envpool") == (
        "environment.backend = 'envpool': envpool is not installed; pip install 'rlweights[envpool]'"
    )
