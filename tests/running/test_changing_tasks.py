"""Runs whose tasks change by phases: what is recorded of the phases, and that a kill changes no bit of it."""

import contextlib
import csv

import numpy as np
import pytest

from rlweights.errors import ConfigError
from rlweights.running.building.policy import Policy
from rlweights.running.recipe import Recipe
from rlweights.running.records.records import Records
from support.simulated import Killed, assert_same_result, result

COMMON = {
    "algorithm.n_steps": 16,
    "algorithm.batch_size": 32,
    "algorithm.n_epochs": 1,
    "algorithm.clip_range": 0.2,
    "algorithm.learning_rate": 0.01,
    "network.hidden_sizes": [4],
    "environment.num_envs": 4,
    "evaluation.every": 0,
    "evaluation.final_episodes": 2,
    "evaluation.film_frames": 0,
    "logging.every": 256,
    "logging.histograms_every": 0,
    "budget.total_timesteps": 24 * 64,
    "checkpoint.every": 5 * 64,
}
WRAPPERS = [
    {"name": "TimeLimit", "max_episode_steps": 13},
    {
        "name": "rlweights.learning.environments:ChangingMujoco",
        "changes": ["motors", "sensors", "direction"],
        "period": 60,
    },
]
CHEETAH = {"environment.wrappers": WRAPPERS, "logging.solved_return": -5.0}
CARTPOLE = {
    "environment.id": "NewTasksCartPole-v1",
    "environment.kwargs": {"period": 90, "actions": True},
    "logging.solved_return": 21.0,
    "interventions": [],
}
RECIPES = {
    "half_cheetah": Recipe("half_cheetah", COMMON | CHEETAH),
    "cartpole_xla": Recipe("cartpole_xla", COMMON | CARTPOLE),
}


def phases(folder):
    """The rows that close a phase: the scalars of each by the last part of their tags."""
    with (folder / "progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["rollout/phase/number"]]
    return [
        {"step": int(row["env_steps"])}
        | {tag.rpartition("/")[2]: float(value) for tag, value in row.items() if "phase/" in tag and value}
        for row in rows
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_an_evaluation_may_be_told_the_phase(name):
    def evaluated(changes):
        policy = Policy(RECIPES[name].changed(changes).agent, name)
        envs = policy.environments.vector(1, evaluation=True)
        first, _ = envs.reset(seed=0)
        seen = [envs.step(envs.action_space.sample() * 0)[:2] for _ in range(3)]
        envs.close()
        return np.concatenate([first.ravel(), *(np.append(o, r) for o, r in seen)])

    plain = evaluated({})
    np.testing.assert_array_equal(evaluated({"evaluation.phase": 0}), plain)
    assert np.any(evaluated({"evaluation.phase": 3}) != plain)


def test_a_phase_that_nothing_takes_is_refused():
    for agent in ("cartpole", "cartpole_xla", "half_cheetah"):
        with pytest.raises(
            ConfigError, match=r"evaluation\.phase = 2: neither \S+ nor a wrapper of it takes a phase"
        ):
            Policy(Recipe(agent, {"evaluation.phase": 2}).agent, agent)


@pytest.mark.parametrize("name", RECIPES)
def test_phases_are_recorded_and_a_killed_run_records_the_same(name, tmp_path, monkeypatch):
    recipe, whole, killed = RECIPES[name], tmp_path / "whole", tmp_path / "killed"
    recipe.begin(tmp_path, folder=whole, quiet=True)
    closed = phases(whole)
    assert [each["number"] for each in closed] == list(range(len(closed)))
    assert len(closed) >= 3
    steps = [each["step"] for each in closed]
    period = 4 * (60 if name == "half_cheetah" else 90)  # environment steps of a phase
    assert all(period * (i + 1) <= step < period * (i + 2) for i, step in enumerate(steps))
    assert all(each["best_return"] >= each["end_return"] for each in closed[:1])
    shares = [sum(each["solved"] for each in closed[: i + 1]) / (i + 1) for i in range(len(closed))]
    assert [each["solved_share"] for each in closed] == pytest.approx(shares)

    write = Records.write

    def dies(records, step, scalars):
        if step >= 17 * 64:  # two iterations after the third checkpoint
            raise Killed
        write(records, step, scalars)

    monkeypatch.setattr(Records, "write", dies)
    with contextlib.suppress(Killed):
        recipe.begin(tmp_path, folder=killed, resume=True, quiet=True)
    monkeypatch.setattr(Records, "write", write)
    outcome = recipe.begin(tmp_path, folder=killed, resume=True, quiet=True)
    assert outcome.made < outcome.env_steps
    assert_same_result(result(killed), result(whole))
