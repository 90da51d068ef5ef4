"""Episodes as functions of a seed and of actions."""

import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlweights.errors import BrokenEnvironment
from rlweights.learning.environments.conformity import Conformity, Misfit
from rlweights.learning.environments.replay import (
    FAILURE,
    RECREATED,
    REPORTED,
    SeededEpisodes,
    described,
    episode_seed,
)


class Walk(gym.Env):
    """A random walk, whose generator is seeded by `reset` alone; `length` steps an episode."""

    def __init__(self, length: int = 5, shared: bool = False, noise: bool = False):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length, self.shared, self.noise = length, shared, noise
        self.state = np.zeros(2, np.float32)
        self.seeds: list[int | None] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.steps = 0
        self.state[:] = self.np_random.normal(size=2)
        return self._seen(), {"begun": True}

    def step(self, action):
        self.steps += 1
        self.state += action + self.np_random.normal(size=2)
        ends = self.steps >= self.length
        info = {"is_success": ends, "ragged": np.arange(self.steps), 3: "odd", "profit": self.steps}
        return self._seen(), float(self.state[0]), ends, False, info

    def _seen(self):
        if self.noise:
            return np.frombuffer(os.urandom(2), np.uint8).astype(np.float32)
        return self.state if self.shared else self.state.copy()


def begun(env: gym.Env, seed: int) -> SeededEpisodes:
    made = SeededEpisodes(env, 0)
    made.reset(seed=seed)
    return made


def play(env: gym.Env, actions) -> list:
    """What an environment returns to actions; it is reset where an episode ends."""
    seen = []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((observation.tobytes(), reward, terminated))
        if terminated or truncated:
            seen.append(env.reset()[0].tobytes())
    return seen


ACTIONS = np.random.default_rng(0).integers(0, 2, 43)


def test_each_episode_has_a_seed_of_its_own_and_the_first_one_that_of_the_environment():
    walk = Walk()
    env = SeededEpisodes(walk, 0)
    env.reset(seed=7)
    play(env, ACTIONS)
    assert walk.seeds[0] == 7
    assert walk.seeds == [episode_seed(7, n) for n in range(len(walk.seeds))]
    assert len(set(walk.seeds)) == len(walk.seeds) == 9


def test_an_episode_does_not_depend_on_those_before_it():
    one, other = SeededEpisodes(Walk(), 0), SeededEpisodes(Walk(), 0)
    one.reset(seed=7)
    other.reset(seed=7)
    play(one, np.zeros(5, int))
    play(other, np.ones(5, int))
    assert play(one, ACTIONS) == play(other, ACTIONS)


@pytest.mark.parametrize("steps", [0, 1, 3, 5, 17, 43])
@pytest.mark.parametrize("shared", [False, True])
def test_a_running_episode_is_played_again_somewhere_else(steps, shared):
    env = SeededEpisodes(Walk(shared=shared), 0)
    begun = env.reset(seed=3)[0].tobytes()
    past = play(env, ACTIONS[:steps])
    other = SeededEpisodes(Walk(shared=shared), 0)
    other.reset(seed=99)
    other.replayed = env.running_episode()
    last = ([begun, *past])[-1]
    assert other.replay_episode().tobytes() == (last if isinstance(last, bytes) else last[0])
    assert play(other, ACTIONS) == play(env, ACTIONS)
    again = other.running_episode()
    for mine, theirs in zip(env.running_episode(), again, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_more_actions_than_there_was_room_for_are_kept():
    env = SeededEpisodes(Walk(length=2_000), 0)
    env.reset(seed=0)
    actions = np.random.default_rng(1).integers(0, 2, 1_500)
    play(env, actions)
    np.testing.assert_array_equal(env.running_episode().actions, actions)


def test_an_environment_that_draws_from_elsewhere_is_named():
    env = SeededEpisodes(Walk(noise=True), 4)
    env.reset(seed=0)
    play(env, ACTIONS[:3])
    env.replayed = env.running_episode()
    with pytest.raises(BrokenEnvironment, match=r"^Walk: environment 4 cannot .* 3 steps from its seed"):
        env.replay_episode()


def test_an_episode_that_pays_otherwise_is_named():
    env = SeededEpisodes(Walk(), 0)
    env.reset(seed=0)
    play(env, ACTIONS[:3])
    running = env.running_episode()
    env.replayed = running._replace(total_reward=running.total_reward + 1)
    with pytest.raises(BrokenEnvironment, match=r"its return is .*, and was "):
        env.replay_episode()
    env.replayed = running._replace(actions=np.tile(running.actions, 3))
    with pytest.raises(BrokenEnvironment, match="it ended at step 5"):
        env.replay_episode()


@pytest.mark.parametrize("nested", [False, True])
def test_the_last_observation_of_an_episode_is_a_copy(nested):
    class Reusing(Walk):
        def _seen(self):
            return {"a": self.state, "b": (self.state,)} if nested else self.state

    walk = Reusing(length=1)
    box = walk.observation_space
    walk.observation_space = spaces.Dict(a=box, b=spaces.Tuple((box,))) if nested else box
    env = SeededEpisodes(walk, 0)
    env.reset(seed=0)
    final, *_ = env.step(0)
    arrays = [final["a"], *final["b"]] if nested else [final]
    kept = [each.copy() for each in arrays]
    env.reset()
    np.testing.assert_array_equal(arrays, kept)
    assert (walk.state != kept[0]).all()


def test_infos_stay_where_they_are_but_for_scalars_at_the_end():
    env = SeededEpisodes(Walk(length=3), 0, names=("profit",))
    assert env.reset(seed=0)[1] == {}
    infos = [env.step(0)[4] for _ in range(3)]
    assert infos == [{}, {}, {REPORTED: {"is_success": 1.0, "profit": 2.0}}]


def test_an_error_names_the_line_of_the_users_own_code():
    class Bug(Walk):
        def step(self, action):
            return {"speed": 0}[self.steps]

    env = SeededEpisodes(gym.wrappers.OrderEnforcing(Bug()), 2)
    env.reset(seed=0)
    line = 'return {"speed": 0}[self.steps]'
    start = "Bug: step() of environment 2 raised KeyError: 0 (test_replay.py, line "
    with pytest.raises(BrokenEnvironment) as raised:
        env.step(0)
    assert str(raised.value).startswith(start)
    assert str(raised.value).endswith(f", in step: {line})")
    assert raised.value.details.startswith("Traceback")
    assert "self.steps" in raised.value.details
    passed_on = BrokenEnvironment(raised.value)  # as Gymnasium does between processes
    assert (str(passed_on), passed_on.details) == (str(raised.value), raised.value.details)


class Gone(Walk):
    """Raises in the resets and steps that a plan names, counted over all that are made."""

    resets, steps_made, plan = 0, 0, ()

    def reset(self, *, seed=None, options=None):
        Gone.resets += 1
        if ("reset", Gone.resets) in Gone.plan:
            raise ConnectionError("gone")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        Gone.steps_made += 1
        if ("step", Gone.steps_made) in Gone.plan:
            raise ConnectionError("gone")
        return super().step(action)


def gone(*plan, most=2):
    Gone.resets = Gone.steps_made = 0
    Gone.plan = plan
    env = SeededEpisodes(Gone(), 0, again=Gone, most=most)
    env.reset(seed=3)
    return env


def test_a_reset_that_raised_is_told_at_once_and_the_episode_that_begins_is_whole():
    env = gone(("reset", 2))
    assert play(env, [0, 0, 0, 0]) == play(begun(Walk(), 3), [0, 0, 0, 0])
    env.step(0)
    _, told = env.reset()
    assert told.keys() == {FAILURE, RECREATED}
    assert [set(env.step(0)[4]) for _ in range(5)] == [set()] * 4 + [{REPORTED}]


def test_an_environment_that_raises_while_an_episode_is_played_again_is_made_anew():
    env = gone()
    play(env, ACTIONS[:3])
    expected = env.running_episode()
    for plan in ((("step", 5),), (("reset", 2),), (("reset", 2), ("step", 6))):
        other = gone(*plan)
        play(other, ACTIONS[:1])
        other.replayed = expected
        other.replay_episode()
        for mine, theirs in zip(other.running_episode(), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    other = gone(("step", 2), ("step", 4), ("step", 6), most=2)
    other.replayed = expected
    with pytest.raises(BrokenEnvironment, match="it was made anew 2 times before"):
        other.replay_episode()


def test_an_error_of_a_library_alone_has_no_place():
    try:
        np.zeros(3).reshape(2, 2)
    except ValueError as error:
        mine = described(error)
    assert mine.startswith("ValueError: cannot reshape array of size 3 into shape (2,2) (test_replay.py")
    assert described(KeyError("speed")) == "KeyError: 'speed'"


# What users' environments do -------------------------------------------------------------------------


class Odd(Walk):
    """Does something odd in step 3: what `deed` makes of its outcome, or raises."""

    def __init__(self, deed, space=None):
        super().__init__(length=9, shared=True)
        self.deed = deed
        self.observation_space = space or self.observation_space

    def step(self, action):
        outcome = super().step(action)
        return self.deed(outcome, self) if self.steps == 3 else outcome


def raising(error):
    def deed(outcome, env):
        raise error

    return deed


class Wordless(RuntimeError):
    def __str__(self):
        raise ValueError("no words")


class Elsewhere:
    """A tensor that is not on the host."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (raising(SystemExit(0)), r"step\(\) of environment 0 raised SystemExit: 0 \(test_replay.py, line"),
        (raising(GeneratorExit()), r"raised GeneratorExit \(test_replay.py"),
        (raising(Wordless()), r"raised Wordless \(test_replay.py"),
        (
            lambda o, _: (Elsewhere(), *o[1:]),
            "an observation of type Elsewhere, which makes no array",
        ),
        (lambda o, _: (o[0], 10**400, *o[2:]), "returned the reward 1000.*: expected one number"),
        (
            lambda o, _: (o[0], np.complex64(1 + 2j), *o[2:]),
            r"the reward .*2j.*: expected one number",
        ),
    ],
)
def test_what_an_environment_does_in_a_step_is_told_of_it_by_number(deed, words):
    env = begun(Odd(deed), 0)
    with pytest.raises(BrokenEnvironment, match=words):
        play(env, [0] * 5)


@pytest.mark.parametrize(
    ("space", "given", "words"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.array([256, 1], np.uint16), "uint8 cannot hold"),
        (spaces.Box(-128, 127, (2,), np.int8), [300, 0], "int8 cannot hold"),
        (spaces.Box(-9, 9, (2,), np.int32), np.array([2**40, 0]), "int32 cannot hold"),
        (spaces.Discrete(5), 5, r"an observation 5: expected shape \(\), int64, of Discrete\(5\)"),
        (spaces.MultiDiscrete([3, 3]), np.array([1, 3]), r"of MultiDiscrete\(\[3 3\]\), as its space says"),
    ],
)
def test_whole_numbers_that_do_not_fit_are_refused_and_not_wrapped_around(space, given, words):
    with pytest.raises(Misfit, match=words):
        Conformity(space).observation(given)
    fits = space.sample()
    np.testing.assert_array_equal(Conformity(space).observation(fits), fits)
    np.testing.assert_array_equal(Conformity(space).observation(np.asarray(fits).tolist()), fits)


def test_an_environment_that_is_made_anew_shows_its_last_whole_observation():
    """Not the array into which the step that failed had begun to write."""

    def half_written(outcome, env):
        env.state[:] = np.nan
        raise OSError("gone")

    env = SeededEpisodes(Odd(half_written), 0, again=lambda: Walk(), most=1)
    env.reset(seed=0)
    seen = [env.step(0)[0] for _ in range(2)]
    last, _, _, cut, told = env.step(0)
    assert cut
    assert FAILURE in told
    np.testing.assert_array_equal(last, seen[-1])
    assert np.isfinite(last).all()


@pytest.mark.parametrize("value", [None, [0], True, lambda self: 3, property(lambda self: 1 / 0)])
def test_an_attribute_steps_made_that_is_no_number_is_none_of_our_business(value):
    kind = type("Counted", (Walk,), {"steps_made": value})
    assert begun(kind(), 0).running_episode().steps_before == 0


def test_infos_that_nobody_can_read_are_left_out():
    def deed(outcome, env):
        info = {"hash": 10**400, "": 1.0, "a\nb": 2.0, "profit": 3.0}
        return (*outcome[:2], True, False, info)

    env = begun(Odd(deed), 0)
    told = [env.step(0)[4] for _ in range(3)][-1]
    assert told[REPORTED] == {"profit": 3.0}
