"""Agents with masks in environments that raise on what is forbidden: trained, evaluated, filmed, resumed."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from rlweights.errors import BrokenEnvironment, ConfigError
from rlweights.running.building.assembly import Assembly
from rlweights.running.building.environments import EnvironmentFactory
from rlweights.running.building.user_code import UserCode
from rlweights.running.config import agent_file
from rlweights.running.trained import TrainedAgent
from support import masked
from support.masked import Strict, StrictVector
from support.smallruns import untrained_run

SMALL = {
    "algorithm": {"name": "ppo", "n_steps": 16, "batch_size": 16, "n_epochs": 2, "ent_coef": 0.01},
    "network": {"hidden_sizes": [4]},
    "interventions": [{"rule": "adaptive_noise", "initial_stddev": 0.3}],
}
for name, entry in {"Strict": Strict, "StrictVector": None}.items():
    gym.register(f"masks/{name}-v0", entry, vector_entry_point=StrictVector if entry is None else None)


def data(**environment) -> dict:
    return {"environment": {"id": "masks/Strict-v0", "num_envs": 2} | environment} | SMALL


def assembled(**environment) -> Assembly:
    return Assembly(agent_file.parse(data(**environment), "test"), "test")


def advanced(loop, first, count) -> None:
    for i in range(first, first + count):
        loop.advance(i, 1)


def everything(assembly, loop) -> dict[str, np.ndarray]:
    named = [*assembly.learner.variables, *loop.variables]
    return {f"{i} {v.path}": np.array(v) for i, v in enumerate(named)}


CASES = {
    "info": {"kwargs": {"kind": "multi"}, "normalize_observations": True},
    "observation": {"kwargs": {"source": "observation"}},
    "vector": {"id": "masks/StrictVector-v0"},
    "tensorflow": {"id": f"{masked.__file__}:StrictTensors", "backend": "tensorflow"},
}


@pytest.mark.parametrize("case", CASES)
def test_trained_evaluated_filmed_and_resumed_without_a_forbidden_action(case):
    assembly = assembled(**CASES[case])
    source = {"vector": "info", "tensorflow": "method"}.get(case, case)
    assert assembly.environments.action_mask == source
    loop = assembly.make_loop()
    loop.begin(0, 0)
    advanced(loop, 0, 2)
    half, state = everything(assembly, loop), loop.state()
    advanced(loop, 2, 2)
    whole = everything(assembly, loop)
    assert all(np.isfinite(x).all() for x in whole.values())
    loop.close()

    again = assembled(**CASES[case])
    loop = again.make_loop()
    loop.begin(0, 0)
    for variable, value in zip([*again.learner.variables, *loop.variables], half.values(), strict=True):
        variable.assign(value)
    loop.restore(state)
    advanced(loop, 2, 2)
    loop.close()
    for name, value in everything(again, loop).items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)

    act = assembly.acting()
    for deterministic in (True, False):
        envs = assembly.environments.vector(2, evaluation=True)
        result = assembly.evaluate(act, envs, 4, 0, deterministic)
        envs.close()
        assert len(result.returns) == 4
        assert result.returns.min() >= 0.0  # a forbidden action of the TensorFlow environment costs 100


@pytest.mark.parametrize("case", ["info", "vector"])
def test_without_masks_these_environments_raise_within_one_rollout(case):
    assembly = assembled(**CASES[case], action_mask="none")

    def one_rollout():
        loop = assembly.make_loop()
        loop.begin(0, 0)
        loop.advance(0, 1)

    with pytest.raises(BrokenEnvironment, match="is forbidden by"):
        one_rollout()


@pytest.mark.parametrize("tensors", [False, True])
def test_a_mask_that_allows_everything_changes_no_byte(tensors):
    found = []
    for mask in ("auto", "none"):
        if tensors:
            environment = {"id": f"{masked.__file__}:AllAllowed", "backend": "tensorflow"}
        else:
            environment = {"kwargs": {"full": True}, "normalize_observations": True}
        assembly = assembled(**environment, action_mask=mask)
        assert (assembly.masking is None) == (mask == "none")
        loop = assembly.make_loop()
        loop.begin(0, 0)
        advanced(loop, 0, 3)
        found.append(everything(assembly, loop))
        loop.close()
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


def source_of(env, chosen, **environment) -> str:
    gym.registry.pop("masks/Chosen-v0", None)
    gym.register("masks/Chosen-v0", env)
    section = {"id": "masks/Chosen-v0", "action_mask": chosen} | environment
    agent = agent_file.parse({"environment": section}, "my.toml")
    return EnvironmentFactory(agent, UserCode("my.toml", Path())).action_mask


def test_what_cannot_be_masked_is_refused_by_name():
    for chosen, source in (("info", ""), ("auto", "method"), ("auto", "observation")):
        with pytest.raises(ConfigError, match="only discrete and multi-discrete actions have masks, not Box"):
            source_of(lambda s=source: continuous(s), chosen)
    assert source_of(lambda: continuous("method"), "none") == "none"
    assert source_of(lambda: continuous(""), "auto") == "none"
    tensors = {"id": f"{masked.__file__}:StrictTensors", "backend": "tensorflow"}
    with pytest.raises(ConfigError, match=r"has a method action_mask\(state\): takes \"method\""):
        source_of(Strict, "info", **tensors)
    with pytest.raises(ConfigError, match=r"CartPole-v1 has no method action_mask\(state\)"):
        source_of(Strict, "method", id="CartPole-v1", backend="tensorflow")


def continuous(source):
    made = Strict(source=source)
    made.action_space = gym.spaces.Box(-1.0, 1.0, (4,))
    return made


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"kwargs": {"empty": 2}},
            r'step() of environment 0 returned info["action_mask"] that allows no action',
        ),
        (
            {"kwargs": {"source": ""}, "action_mask": "info"},
            'reset() of environment 0 returned no info["action',
        ),
        (
            {"kwargs": {"source": ""}, "action_mask": "method"},
            "returned no mask: it has no method action_masks",
        ),
        (
            {"id": f"{masked.__file__}:StrictTensors", "kwargs": {"empty": True}, "backend": "tensorflow"},
            "StrictTensors: action_mask(state) allowed no action in",
        ),
    ],
)
def test_an_environment_that_allows_nothing_or_tells_nothing_is_named(environment, message):
    assembly = assembled(**environment)

    def one_rollout():
        loop = assembly.make_loop()
        loop.begin(0, 0)
        loop.advance(0, 1)

    with pytest.raises(BrokenEnvironment) as caught:
        one_rollout()
    assert message in str(caught.value)


def test_a_run_keeps_its_source_and_its_agent_takes_masks(tmp_path):
    agent = TrainedAgent(untrained_run(tmp_path, data(kwargs={"source": "observation"})), "latest")
    mask = np.array([0, 0, 1, 0], np.int8)
    look = {"look": np.zeros(3, np.float32), "action_mask": mask}
    assert agent.act(look) == 5
    with pytest.raises(ConfigError, match="the masks are in the observations"):
        agent.act(look, mask)
    agent = TrainedAgent(untrained_run(tmp_path / "info", data(kwargs={"kind": "multi"})), "latest")
    masks = np.array([[0, 1, 0, 0, 1], [1, 0, 1, 0, 0]], np.int8)
    assert agent.predict(np.zeros((2, 3)), False, action_masks=masks).tolist() == [[2, 7], [1, 5]]
    assert agent.act(np.zeros(3), (masks[0, :2], masks[0, 2:])).tolist() == [2, 7]
    for given, message in (
        (None, "action_masks are needed"),
        (masks[:, :4], "expected"),
        (0 * masks, "no action"),
    ):
        with pytest.raises(ConfigError, match=message):
            agent.predict(np.zeros((2, 3)), action_masks=given)
    assert len(agent.evaluate(2).returns) == 2
    assert agent.frames()[1][0] >= 0.0
