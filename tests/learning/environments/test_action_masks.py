"""How environments tell masks: every form is read, and what is wrong is named."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rlweights.learning.environments.action_masks import (
    MaskedObservations,
    MaskedVector,
    MaskReader,
    offered,
    random_action,
)
from rlweights.learning.environments.conformity import Misfit
from support.masked import PARTS, Strict, StrictVector

ROWS = spaces.MultiDiscrete([[2, 3], [2, 2]])


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (PARTS["discrete"], np.array([1, 0, 0, 1], np.int8), [1, 0, 0, 1]),
        (PARTS["discrete"], [True, False, False, True], [1, 0, 0, 1]),
        (PARTS["discrete"], np.array([1.0, 0.0, 0.0, 1.0]), [1, 0, 0, 1]),
        (PARTS["multi"], np.array([0, 1, 1, 0, 0], bool), [0, 1, 1, 0, 0]),
        (PARTS["multi"], (np.array([0, 1]), np.array([1, 0, 0])), [0, 1, 1, 0, 0]),
        (PARTS["multi"], [[0, 1], [1, 0, 0]], [0, 1, 1, 0, 0]),
        (ROWS, (([0, 1], [1, 0, 0]), ([1, 0], [1, 1])), [0, 1, 1, 0, 0, 1, 0, 1, 1]),
    ],
)
def test_every_form_of_a_mask_is_read(space, value, expected):
    read = MaskReader(space, "a mask").read(value)
    assert read.dtype == np.int8
    assert read.tolist() == expected


@pytest.mark.parametrize(
    ("space", "value", "message"),
    [
        (PARTS["discrete"], np.zeros(4), "a mask that allows no action: [0 0 0 0]"),
        (PARTS["multi"], np.array([1, 1, 0, 0, 0]), "a mask that allows no action: [1 1 0 0 0]"),
        (PARTS["discrete"], np.ones(3), "a mask of shape (3,): expected 4 entries"),
        (PARTS["multi"], np.ones((5, 1)), "of the shapes (1,), (1,), (1,), (1,), (1,): expected (2,), (3,)"),
        (PARTS["multi"], np.ones(6), "a mask of shape (6,): expected 5 entries, 2 + 3"),
        (PARTS["discrete"], None, "a mask of shape (): expected 4 entries"),
        (PARTS["discrete"], np.array([2, 0, 0, 1]), "entries other than 0 and 1: [2 0 0 1]"),
        (PARTS["discrete"], np.array([np.nan, 0, 0, 1]), "entries other than 0 and 1"),
        (PARTS["discrete"], np.array(["yes"] * 4), "a mask of <U3, and no numbers"),
    ],
)
def test_what_is_no_mask_is_named(space, value, message):
    with pytest.raises(Misfit) as caught:
        MaskReader(space, "a mask").read(value)
    assert message in str(caught.value)


@pytest.mark.parametrize("source", ["info", "method", "observation", ""])
@pytest.mark.parametrize("kind", PARTS)
def test_a_single_environment_tells_its_masks(source, kind):
    assert offered(Strict(kind, source)) == (source or None)
    if not source:
        return
    env = MaskedObservations(Strict(kind, source), source)
    observation, _ = env.reset(seed=0)
    env.action_space.seed(0)
    ended, steps = False, 0
    while not ended:
        assert env.observation_space.contains(observation)
        np.testing.assert_array_equal(observation["action_mask"], env.unwrapped.mask)
        observation, _, ended, _, _ = env.step(random_action(env.action_space, observation["action_mask"]))
        steps += 1
    assert steps == 6
    assert observation["action_mask"].all()  # where an episode ends nothing is chosen


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_tells_the_masks_of_what_is_acted_on(mode):
    vector = StrictVector(mode=mode)
    assert offered(vector) == "info"
    envs, space = MaskedVector(vector, "info"), vector.single_action_space
    observed, _ = envs.reset(seed=0)
    for _ in range(20):
        assert envs.observation_space.contains(observed)
        actions = np.array([random_action(space, mask) for mask in observed["action_mask"]])
        observed, _, terminated, _, info = envs.step(actions)  # raises on what is forbidden
        if mode is AutoresetMode.SAME_STEP and terminated.any():
            assert info["final_obs"][np.flatnonzero(terminated)[0]]["observation"].shape == (3,)
        if mode is AutoresetMode.DISABLED and terminated.any():
            observed, _ = envs.reset(options={"reset_mask": terminated})
    vector.reset = lambda **_: (
        np.zeros((2, 3), np.float32),
        {"action_mask": np.ones((2, 4)), "_action_mask": [1, 0]},
    )
    with pytest.raises(Misfit, match=r'no info\["action_mask"\] of environment 1'):
        envs.reset(seed=0)
