"""The whole that trains: the same seed gives the same one, and building it changes nothing."""

import numpy as np
import pytest

from rlweights.learning.loops.device import GraphPrograms
from rlweights.running.building import assembly
from rlweights.running.building.assembly import Assembly
from rlweights.running.config import agent_file
from support.assemblies import assembled

WHOLE = [{"rule": "clipping", "bound": 1.0}, {"rule": "adaptive_noise"}]


@pytest.mark.parametrize("backend", ["gymnasium", "tensorflow"])
def test_two_assemblies_in_one_process_are_equal(backend):
    overrides = [f"environment.backend={backend}", "environment.normalize_observations=true"]
    first, second, other = (
        assembled(*overrides, seed, rules=WHOLE) for seed in ("seed=1", "seed=1", "seed=2")
    )
    for a, b, c in zip(*(each.learner.variables for each in (first, second, other)), strict=True):
        assert a.path == b.path == c.path
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    kernels = [each.networks.policy.head.kernel.numpy() for each in (first, other)]
    assert not np.array_equal(*kernels)


def test_trying_the_rules_changes_nothing(monkeypatch):
    tried = assembled(rules=WHOLE)
    monkeypatch.setattr(assembly, "try_rules", lambda *args: None)
    untried = assembled(rules=WHOLE)
    for a, b in zip(tried.learner.variables, untried.learner.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)


def test_the_largest_seed_works():
    assert assembled(f"seed={2**31 - 1}", rules=WHOLE).rules[0].seed == 2**31 - 1


def test_no_variable_of_a_shipped_agent_is_int32(monkeypatch):
    """TensorFlow keeps those in the memory of the host, and no program on a GPU finds them there."""
    monkeypatch.setattr(GraphPrograms, "_compile", lambda self: None)  # the variables are all that counts
    found = {}
    for name, path in agent_file.shipped().items():
        whole = Assembly(agent_file.load(path), name)
        variables = list(whole.learner.variables)
        if (environment := whole.environments.tensorflow) is not None:
            variables += GraphPrograms(whole.learner, environment, 2, 0).variables
        found[name] = {v.path for v in variables if v.dtype == "int32"}
        assert "iteration" in {v.path for v in variables if v.dtype == "int64"}
    assert found == {name: set() for name in agent_file.shipped()}
