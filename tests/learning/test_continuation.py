"""Vector environments that go on where they were, in another process."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from rlweights.errors import BrokenEnvironment
from rlweights.learning import continuation
from rlweights.learning.continuation import Continuation, ReadState, ReplayedEpisodes, ReplayedVector
from rlweights.learning.environments.replay import SeededEpisodes
from rlweights.learning.stepper import Stepper
from support.builders import stepper_of

N = 3
ACTIONS = np.random.default_rng(0).integers(0, 2, (150, N))


def singles(kind: str) -> Stepper:
    """CartPole one after the other or in processes; with a wrapper that keeps a state of its own."""

    def single(index: int) -> gym.Env:
        env = gym.wrappers.TimeAwareObservation(gym.make("CartPole-v1", max_episode_steps=40))
        return SeededEpisodes(env, index)

    vector = {"sync": gym.vector.SyncVectorEnv, "async": gym.vector.AsyncVectorEnv}[kind]
    made = [lambda i=i: single(i) for i in range(N)]
    return stepper_of(vector(made, autoreset_mode=AutoresetMode.SAME_STEP, copy=False))


def native() -> Stepper:
    return stepper_of(gym.make_vec("CartPole-v1", N, vectorization_mode="vector_entry_point"))


MAKERS = {
    "sync": lambda: ReplayedEpisodes(singles("sync")),
    "async": lambda: ReplayedEpisodes(singles("async")),
    "read": lambda: ReadState(native()),
    "whole": lambda: ReplayedVector(native()),
}


@pytest.fixture(params=list(MAKERS))
def pair(request):
    """Two vector environments, as two processes would have them."""
    both = [MAKERS[request.param]() for _ in range(2)]
    yield both
    for each in both:
        each.stepper.envs.close()


def steps(episodes: Continuation, actions) -> list[Any]:
    """Everything that steps return, as bytes."""
    found = []
    for each in actions:
        t = episodes.step(each)
        found += [x.tobytes() for x in t if isinstance(x, np.ndarray)]
        found += [(n, final.tobytes()) for n, final in t.finals.items()]
    return found


@pytest.mark.parametrize("before", [0, 1, 37, 100])
def test_another_one_goes_on_as_if_nothing_had_happened(pair, before):
    one, other = pair
    seen = one.reset(5).copy()
    for actions in ACTIONS[:before]:
        seen = one.step(actions).observations.copy()
    state = {name: np.array(value) for name, value in one.state().items()}
    assert all(value.dtype.kind in "biu" for value in state.values()), "a checkpoint holds finite numbers"
    other.reset(77)
    steps(other, ACTIONS[:3])
    np.testing.assert_array_equal(other.restore(state), seen)
    assert steps(other, ACTIONS[before:]) == steps(one, ACTIONS[before:])
    for name, value in one.state().items():
        np.testing.assert_array_equal(other.state()[name], value, name)


def test_looking_at_the_state_changes_nothing(pair):
    one, other = pair
    one.reset(5)
    other.reset(5)
    steps(one, ACTIONS[:20])
    one.state()
    steps(other, ACTIONS[:20])
    assert steps(one, ACTIONS) == steps(other, ACTIONS)


def test_only_what_is_broken_begins_afresh_where_that_is_possible(pair):
    one, _ = pair
    one.reset(5)
    steps(one, ACTIONS[:2])
    before = one.step(ACTIONS[2]).observations.copy()
    after, begun = one.restart(np.array([False, True, False]), 9)
    kept = isinstance(one, ReplayedEpisodes)
    assert begun.tolist() == ([False, True, False] if kept else [True] * N)
    assert np.array_equal(after[0], before[0]) == kept
    assert not np.array_equal(after[1], before[1])


class Hidden(gym.vector.VectorEnv):
    """A counter whose state is out of sight, in a closure."""

    def __init__(self, plain: bool):
        self.num_envs = 2
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.single_action_space = gym.spaces.Discrete(2)
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, 2)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, 2)
        self.plain, self.count, self.box = plain, 0, {"count": 0}

    def _seen(self):
        return np.full((2, 1), self.count if self.plain else self.box["count"], np.float32)

    def reset(self, *, seed=None, options=None):
        self.count = self.box["count"] = 0
        return self._seen(), {}

    def step(self, actions):
        self.count += int(actions[0])
        self.box["count"] += int(actions[0])
        no = np.zeros(2, bool)
        return self._seen(), np.ones(2), no, no, {}


@pytest.mark.parametrize("plain", [True, False])
def test_whether_plain_attributes_are_all_is_found_out_by_trying(plain):
    draws = iter(np.ones((100, 2), int))
    assert ReadState.holds(stepper_of(Hidden(plain)), lambda _: next(draws)) == plain


def test_gymnasiums_own_vector_version_of_cartpole_is_read():
    rng = np.random.default_rng(0)
    assert ReadState.holds(native(), lambda _: rng.integers(0, 2, N))


def test_a_vector_that_is_seeded_only_as_a_whole_is_reset_when_its_record_is_long(monkeypatch):
    monkeypatch.setattr(continuation, "LONGEST_RECORD", 30)
    one = ReplayedVector(native())
    assert one.cuts.startswith("episodes are cut every 30 steps: ")
    one.reset(0)
    steps(one, ACTIONS[:9])
    assert not one.due()
    steps(one, ACTIONS[:1])
    assert one.due()
    one.reset(1)
    assert not one.due()
    assert one.state()["actions"].shape == (0,)


def test_a_vector_that_does_not_come_out_where_it_was_is_named():
    one = ReplayedVector(native())
    one.reset(0)
    steps(one, ACTIONS[:60])
    state = one.state() | {"seed": np.int64(1)}
    with pytest.raises(BrokenEnvironment, match="CartPole-v1: cannot be resumed: 60 steps were"):
        MAKERS["whole"]().restore(state)


# Parameters, and vectors in which nothing ends ----------------------------------------------------


@pytest.mark.parametrize("before", [0, 2, 37])
def test_parameters_come_along(pair, before):
    """Running episodes have begun with the first parameters, with the second or with none."""
    one, other = pair
    one.reset(5)
    steps(one, ACTIONS[:before])
    one.set_parameters({"force_mag": 25.0})
    steps(one, ACTIONS[before : before + 20])
    one.set_parameters({"force_mag": 25.0, "gravity": 3.0})
    seen = one.step(ACTIONS[60]).observations.copy()
    state = {name: np.array(value) for name, value in one.state().items()}
    other.set_parameters({"force_mag": 25.0, "gravity": 3.0})
    np.testing.assert_array_equal(other.restore(state), seen)
    assert steps(other, ACTIONS) == steps(one, ACTIONS)
    for each in pair:
        each.set_parameters({})
        each.reset(6)
    plain, _ = (MAKERS["sync" if isinstance(one, ReplayedEpisodes) else "read"]() for _ in range(2))
    plain.reset(6)
    assert steps(one, ACTIONS) == steps(other, ACTIONS) == steps(plain, ACTIONS), "as if nothing had been set"


def test_a_parameter_changes_what_happens(pair):
    one, other = pair
    for each in pair:
        each.reset(5)
    steps(one, ACTIONS[:1])
    steps(other, ACTIONS[:1])
    one.set_parameters({"force_mag": 25.0})
    first, others = one.step(ACTIONS[1]), other.step(ACTIONS[1])
    waits = isinstance(one, ReplayedEpisodes)
    assert np.array_equal(first.observations, others.observations) == waits, "it waits for the next episode"
    assert steps(one, ACTIONS) != steps(other, ACTIONS)


@pytest.mark.parametrize("name", ["force", "step", "metadata"])
def test_what_is_no_parameter_is_refused(pair, name):
    with pytest.raises(ValueError, match=f"'{name}'"):
        pair[0].set_parameters({name: 1.0})


@pytest.mark.parametrize("ends", [False, True])
def test_a_vector_that_is_reset_before_anything_has_ended_warns(monkeypatch, ends):
    monkeypatch.setattr(continuation, "LONGEST_RECORD", 90 if ends else 15)
    one = ReplayedVector(native())
    one.reset(0)
    for _ in range(2):
        steps(one, ACTIONS[: 90 if ends else 5])
        assert one.due()
        assert one.warning() == ""
        one.reset(1)
        if not ends:
            break
    assert one.warning().startswith("15 steps have passed and no episode has ended: all 3 were cut") != ends
    assert ('environment.vectorization_mode = "sync"' in one.warning()) != ends


def test_a_new_beginning_is_no_cut():
    one = ReplayedVector(native())
    one.reset(0)
    steps(one, ACTIONS[:3])
    one.reset(1)
    assert one.warning() == ""
