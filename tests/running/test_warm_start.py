"""Runs that begin with the weights of another run."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import rlweights as rw
from rlweights import train
from rlweights.errors import ConfigError
from rlweights.running import session
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.running.recipe import Recipe
from rlweights.running.records.console import Console
from rlweights.running.saving import checkpoint_file
from rlweights.running.trainer import Trainer
from rlweights.running.warm_start import START, WarmStart
from support.commandline import invoke
from support.simulated import assert_same_result, newest, result
from support.smallruns import TINY, untrained_run

DATA = {
    "environment": {"id": "CartPole-v1", "num_envs": 2, "normalize_observations": True},
    "algorithm": {"name": "ppo", "n_steps": 32, "batch_size": 64, "n_epochs": 1},
    "network": {"hidden_sizes": [4]},
    "budget": {"total_timesteps": 256},
    "evaluation": {"every": 0, "final_episodes": 2, "film_frames": 0},
    "checkpoint": {"every": 128},
}
CHANGES = {
    "environment.normalize_observations": True,
    "network.hidden_sizes": [4],
    "budget.total_timesteps": 1_024,
    "evaluation.final_episodes": 2,
    "checkpoint.every": 512,
}


@pytest.fixture
def first(tmp_path) -> Path:
    return untrained_run(tmp_path / "first", DATA)


def weights_of(run: Path, which: str = "latest") -> dict[str, np.ndarray]:
    return checkpoint_file.load(run / which / "weights.safetensors")[0]


@pytest.mark.filterwarnings("ignore:.*does not survive")
def test_rules_and_distances_begin_at_the_new_weights(first):
    rules = [
        {"rule": "shrinkage", "rate": 0.1, "towards": "initial"},
        {"rule": "projection", "constraint": "norm", "on": "kind('kernel')"},
        {"rule": "clipping", "bound": 1.0, "unit": "init", "on": "kind('kernel')"},
        {"rule": "averaging"},
    ]
    start = WarmStart.of(first)
    agent = agent_file.parse(DATA | {"interventions": rules}, "test")
    assembly = Assembly(agent, "test", start=start.weights, origin=str(start))
    given = weights_of(first)
    assert {v.path for v in assembly.networks.variables} == given.keys()
    for variable in assembly.networks.variables:
        np.testing.assert_array_equal(variable, given[variable.path])
    path, kernel = "policy/hidden_0/kernel", given["policy/hidden_0/kernel"]
    own = {v.name: v.numpy() for v in assembly.optimizer.variables}
    arrays = [
        x for name, x in own.items() if x.shape == kernel.shape and ("initial" in name or "average" in name)
    ]
    assert sum(np.array_equal(x, kernel) for x in arrays) == 2, "shrinkage and averaging"
    reach = next(x for name, x in own.items() if name.endswith("policy_hidden_0_kernel_reach"))
    assert reach == np.abs(kernel).max()
    norm = next(x for name, x in own.items() if "policy_hidden_0_kernel_norm" in name)
    assert norm.ravel()[0] == pytest.approx(np.linalg.norm(kernel), rel=1e-6)
    with Trainer(assembly, Console(0, quiet=True)) as trainer:
        names = [v.path for v in assembly.networks.trainable_variables]
        np.testing.assert_array_equal(trainer._initial[names.index(path)], kernel)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"network": {"hidden_sizes": [5]}}, "policy/hidden_0/kernel is [4, 4] there and [4, 5] here"),
        ({"network": {"hidden_sizes": [4, 4]}}, "policy/hidden_1/kernel is only here"),
        ({"environment": {"id": "CartPole-v1"}}, "normalization/count is only there"),
        ({"environment": DATA["environment"] | {"id": "Acrobot-v1"}}, "is [4, 4] there and [6, 4] here"),
    ],
)
def test_what_does_not_fit_is_named(first, tmp_path, sections, says):
    agent = agent_file.parse(DATA | sections, "my.toml")
    with pytest.raises(ConfigError) as caught:
        session.begin(agent, "my.toml", Path(), tmp_path / "runs", "my", start=WarmStart.of(first))
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"my.toml: the weights of {first}, latest, 0 steps do not fit: ")
    assert not (tmp_path / "runs").exists()


def test_the_old_run_is_needed_no_more(first, tmp_path, monkeypatch, capsys):
    recipe = Recipe("cartpole", CHANGES, start=first)
    whole = recipe.begin(tmp_path / "runs").folder
    assert f"begins with  the weights of {first}, latest, 0 steps" in capsys.readouterr().out.replace(
        "\n", ""
    )
    assert checkpoint_file.load(whole / START)[0].keys() == weights_of(first).keys()

    def dies(self, folder, resume=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", dies)
        with pytest.raises(KeyboardInterrupt):
            recipe.begin(tmp_path / "killed", quiet=True)
    shutil.rmtree(first)
    (killed,) = (tmp_path / "killed").glob("*/*")
    session.resume(killed, [], quiet=True)
    assert_same_result(result(killed), result(whole))
    repeated = Recipe(whole).begin(tmp_path / "repeated", quiet=True).folder
    assert_same_result(result(repeated), result(whole))
    shutil.rmtree(whole / "checkpoints")
    fresh = Recipe("cartpole", CHANGES).begin(tmp_path / "fresh", quiet=True).folder
    assert result(fresh)["latest/weights.safetensors"] != result(repeated)["latest/weights.safetensors"]


def test_the_optimizer_on_request(tmp_path):
    changes = CHANGES | {"environment.normalize_rewards": True}
    before = Recipe("cartpole", changes).begin(tmp_path / "runs", quiet=True).folder
    step, saved, _ = newest(before)
    agent = Recipe("cartpole", changes).agent
    plain, whole = WarmStart.of(before), WarmStart.of(before, optimizer=True)
    assert (plain.metadata["which"], whole.metadata["which"]) == ("best", "newest checkpoint")
    assert whole.metadata["env_steps"] == step == 1_024
    for start, expected in ((plain, 0), (whole, saved["adam/iteration"])):
        assembly, kept = session._assembled(agent, "test", Path(), start)
        assert kept is not None
        variables = {v.path: v.numpy() for v in assembly.learner.variables}
        assert variables["adam/iteration"] == expected
        assert np.any(variables["adam/policy_head_kernel_momentum"]) == bool(expected)
        assert variables["reward_scaling/count"] == saved["reward_scaling/count"] > 0
        assert not np.any(variables["reward_scaling/returns"])
        assert variables["iteration"] == 0
        other = agent.model_copy(update={"optimizer": agent.optimizer.model_copy(update={"name": "sgd"})})
        if expected:
            assert {"optimizer/adam/iteration", "reward_scaling/mean"} <= kept.tensors.keys()
            with pytest.raises(ConfigError, match=r"optimizer's state does not fit, there is no sgd/"):
                session._assembled(other, "test", Path(), start)
        else:
            session._assembled(other, "test", Path(), start)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--from-optimizer",), "goes with --from"),
        (("--from", "there", "--resume", "here"), "it does not go with --resume"),
    ],
)
def test_options_that_do_not_go_together(words, says):
    code, _, error = invoke(train.app, *words)
    assert code == 2
    assert says in " ".join(error.replace("│", " ").split())


def test_nothing_to_begin_with(first, tmp_path):
    with pytest.raises(ConfigError, match="no run folder"):
        Recipe("cartpole", start=tmp_path).begin(tmp_path / "runs")
    with pytest.raises(ConfigError, match="no optimizer state to begin with"):
        Recipe("cartpole", start=first, start_optimizer=True).begin(tmp_path / "runs")
    with pytest.raises(ConfigError, match="`start` names none"):
        rw.Recipe("cartpole", start_optimizer=True)
    path = first / "latest" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match="damaged or not a checkpoint"):
        Recipe("cartpole", start=first).begin(tmp_path / "runs")
    path.unlink()
    with pytest.raises(ConfigError, match="holds no weights to begin with"):
        Recipe("cartpole", start=first).begin(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_several_seeds_begin_alike(first, tmp_path):
    words = [*TINY, "network.hidden_sizes=[4]", "environment.normalize_observations=true"]
    sets = [word for each in words for word in ("--set", each)]
    code, _, error = invoke(
        train.app, "cartpole", *sets, "--from", first, "--seeds", 2, "--runs", tmp_path / "runs", "-q"
    )
    assert (code, error) == (0, "")
    runs = list((tmp_path / "runs").glob("*/*"))
    assert len(runs) == 2
    assert all((run / START).read_bytes() == (runs[0] / START).read_bytes() for run in runs)
