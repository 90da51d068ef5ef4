"""The regression that guards the product: the default agent solves CartPole, clipped and noisy."""

from typing import Any

import numpy as np
import pytest

from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from rlweights.weights.interventions import AdaptiveNoise, Clipping

SEEDS = (0, 1, 2, 3, 4)
SOLVED = 475.0


def trained(name: str, seed: int, *overrides: str) -> tuple[Assembly, list[dict[str, float]]]:
    """Trains a shipped agent without files and returns it with the scalars of every iteration."""
    path = agent_file.find(name)
    agent = agent_file.load(path, [f"seed={seed}", *overrides])
    assembly = Assembly(agent, str(path), path.parent)
    loop = assembly.make_loop()
    rows: list[dict[str, float]] = []
    try:
        loop.begin(0, 0)
        while len(rows) < agent.total_iterations:
            rows += [scalars for scalars, _ in loop.advance(len(rows), agent.total_iterations - len(rows))]
    finally:
        loop.close()
    return assembly, rows


def score(assembly: Assembly, episodes: int = 100) -> float:
    """Mean return in Gymnasium's own environment, with greedy actions unless the agent says otherwise."""
    envs = assembly.environments.vector(20, evaluation=True)
    try:
        with assembly.optimizer.evaluation():
            return assembly.evaluate(assembly.acting(), envs, episodes, 10_000).mean
    finally:
        envs.close()


def clipped_within_bounds(assembly: Assembly) -> bool:
    """Whether every clipped weight lies inside its bound, to the last bit."""
    (rule,) = (rule for rule in assembly.rules if isinstance(rule, Clipping))
    return all(
        bool((np.abs(variable.numpy()) <= np.asarray(rule.limit(variable, 0))).all())
        for variable in rule.variables
    )


@pytest.fixture(scope="module")
def runs() -> list[tuple[Assembly, list[dict[str, float]]]]:
    """The default agent, once for each seed, within 100,000 environment steps."""
    assert agent_file.load(agent_file.find("cartpole")).budget.total_timesteps <= 100_000
    return [trained("cartpole", seed) for seed in SEEDS]


def test_solves_cartpole_for_at_least_four_of_five_seeds(runs):
    scores = [score(assembly) for assembly, _ in runs]
    assert sum(each >= SOLVED for each in scores) >= 4, scores


def test_clipping_did_something_and_held(runs):
    for assembly, rows in runs:
        assert clipped_within_bounds(assembly)
        assert max(row["intervention/clipping/saturated"] for row in rows) > 0.0


def test_noise_acted_and_adapted(runs):
    for assembly, rows in runs:
        stddev = [row["intervention/adaptive_noise/stddev"] for row in rows]
        assert min(stddev) > 0.0
        assert len(set(stddev)) > 100  # it is adapted after every iteration
        assert min(row["intervention/adaptive_noise/relative_change"] for row in rows) > 0.0
        assert max(row["intervention/adaptive_noise/distance"] for row in rows) > 0.0
        (rule,) = (rule for rule in assembly.rules if isinstance(rule, AdaptiveNoise))
        assert all(path.startswith("policy/") for path in (v.path for v in rule.variables))


@pytest.mark.parametrize(
    "broken",
    [
        "algorithm.learning_rate=1e-12",  # an update that does nothing
        "interventions.clipping.bound=0.01",  # a bound in which nothing can be represented
    ],
)
def test_a_broken_update_does_not_pass(broken):
    assembly, _ = trained("cartpole", 0, broken, "budget.total_timesteps=30_000")
    assert score(assembly, episodes=20) < SOLVED


def test_without_rules_nothing_is_clipped_and_nothing_is_noisy():
    assembly, rows = trained("cartpole_plain", 0, "budget.total_timesteps=2_560")
    assert not assembly.rules
    assert not any(tag.startswith("intervention/") for row in rows for tag in row)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(agent_file.shipped()))
def test_every_agent_reaches_what_it_expects_in_the_median_of_its_seeds(name: str):
    agent = agent_file.load(agent_file.find(name))
    assert agent.expect is not None
    scores: list[Any] = [score(trained(name, seed)[0]) for seed in agent.expect.seeds]
    assert np.median(scores) >= agent.expect.mean_reward, scores
