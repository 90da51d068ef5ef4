"""Checks of environments: planted faults are found, and Gymnasium's own environments are healthy."""

import gymnasium as gym
import numpy as np
import pytest

from rlweights.running.config import agent_file
from rlweights.running.environment_check import check

AGENT = agent_file.parse({"environment": {"id": "CartPole-v1"}}, "test")


class Line(gym.Env):
    """Walks on a line; a fault can be planted."""

    alive = 0

    def __init__(self, fault=""):
        self.fault = fault
        high = np.array([20.0, 20.0], np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Discrete(2)
        if fault == "actions":
            self.action_space = gym.spaces.Box(5.0, 35.0, (1,))
        if fault == "fixed":
            self.action_space = gym.spaces.Box(1.0, 1.0, (1,))
        Line.alive += 1
        if fault == "one" and Line.alive > 1:
            raise RuntimeError("the port is taken")
        self.kept = np.zeros(2, np.float32)

    def observed(self):
        x = np.array([self.x, self.start], np.float32)
        if self.fault == "scale":
            x *= np.float32([1.0, 1e4])
        if self.fault == "constant":
            x[1] = 3.0
        if self.fault == "nan" and self.t == 5:
            x[0] = np.nan
        if self.fault == "shape":
            x = np.zeros(3, np.float32)
        if self.fault == "aliased":
            self.kept[:] = x
            return self.kept
        return x

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.fault == "random" else self.np_random
        self.start = 0.5 if self.fault == "unseeded" else float(rng.uniform(-2.0, 2.0))
        self.x, self.t = self.start, 0
        return self.observed(), {}

    def step(self, action):
        if self.fault == "raises" and self.t == 7:
            raise ValueError("out of memory")
        self.t += 1
        right = bool(np.asarray(action).mean() > (20.0 if self.fault in ("actions", "fixed") else 0.5))
        self.x += 0.0 if self.fault == "ignores" else (1.0 if right else -1.0)
        end = abs(self.x) > 5.0
        reward = 1.0 if right else 0.0
        if self.fault == "penalty":
            reward = -500.0 if end else 1.0
        if self.fault == "none":
            reward = 0.0
        if self.fault == "huge":
            reward *= 1e5
        limit = 15 if self.fault in ("disguised", "constant_reward", "ignores") else 40
        if self.fault in ("disguised", "constant_reward"):
            end = self.t == limit
        if self.fault == "constant_reward":
            reward = 1.0
        if self.fault.startswith("endless"):
            end, limit = False, 10**9 if self.fault == "endless" else 60
            self.x = float(np.clip(self.x, -5.0, 5.0))
        return self.observed(), reward, bool(end), self.t >= limit and not end, {}

    def close(self):
        Line.alive -= 1


@pytest.mark.parametrize(
    ("fault", "symptom", "settings"),
    [
        ("raises", "raises", []),
        ("nan", "misfit", []),
        ("shape", "misfit", []),
        ("random", "not_deterministic", []),
        ("unseeded", "seed_ignored", []),
        ("aliased", "array_changed", []),
        ("one", "one_instance", []),
        ("actions", "actions_off_center", ["environment.rescale_actions=false"]),
        ("fixed", "actions_fixed", []),
        ("scale", "observation_scale", []),
        ("constant", "observation_constant", []),
        ("penalty", "reward_outlier", []),
        ("none", "no_reward", []),
        ("huge", "reward_scale", []),
        ("disguised", "time_limit_in_disguise", []),
        ("constant_reward", "reward_constant", []),
        ("endless", "no_end", []),
        ("endless_limited", "horizon_short", ["algorithm.gamma=0.0"]),
    ],
)
def test_a_planted_fault_is_found(fault, symptom, settings):
    Line.alive = 0
    agent = agent_file.parse(AGENT.model_dump(by_alias=True, exclude_none=True), "test", settings)
    found = check(agent, lambda: Line(fault), steps=400)
    names = [each.symptom for each in found.findings]
    assert symptom in names
    if fault == "raises":
        assert "step 7 raised ValueError: out of memory" in found.findings[0].text
    assert Line.alive == (1 if fault == "one" else 0)


def test_actions_that_change_nothing_are_found():
    class Still(Line):
        def step(self, action):
            return super().step(1)

    assert "actions_ignored" in [each.symptom for each in check(AGENT, Still, steps=200).findings]


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1"])
def test_healthy_environments_have_no_grave_finding(name):
    agent = agent_file.for_environment(name).agent
    found = check(agent, lambda: gym.make(name), steps=300)
    assert [each for each in found.findings if each.kind == "cause"] == []
    assert "steps/s" in found.facts["speed"]
