"""Tests for `rlweights.weights.cadence`: when the metrics of rules are measured."""

import keras
import numpy as np
import pytest

import rlweights as rw
from rlweights.weights.cadence import is_looked_at


def test_by_default_metrics_are_measured_early_and_then_rarely():
    steps = [count for count in range(1, 350) if bool(is_looked_at(keras.ops.array(count - 1), None))]
    assert steps == [1, 2, 4, 8, 16, 32, 64, 100, 200, 300]
    assert is_looked_at(keras.ops.array(0), 1) is True
    assert [bool(is_looked_at(keras.ops.array(step), 3)) for step in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "rarely"])
def test_a_cadence_that_is_none_is_refused(every):
    with pytest.raises(ValueError, match=r"`metrics_every` takes a whole number of at least 1, or None"):
        rw.InterventionOptimizer(keras.optimizers.SGD(), [], metrics_every=every)


@pytest.mark.parametrize(
    "rule",
    [rw.Clipping(0.2, unit="absolute", on=".*"), rw.Noise(0.1, placement="after_step", on=".*")],
    ids=lambda rule: rule.name,
)
def test_what_is_measured_before_it_is_done_is_what_is_done(rule):
    """Rarely measured rules foretell; those that are measured at each step look back. Both see the same."""
    found = []
    for every in (None, 1):
        keras.utils.set_random_seed(0)
        kernel, large = (keras.Variable(np.full(n, 0.3, np.float32)) for n in ((3, 2), (200, 100)))
        again = type(rule).from_config(rule.get_config())
        optimizer = rw.InterventionOptimizer(
            keras.optimizers.SGD(0.1), [again], metrics_every=every, name="interventions"
        )
        optimizer.build([kernel, large])
        optimizer.apply([keras.ops.ones_like(kernel), keras.ops.zeros_like(large)])
        found.append({name: np.asarray(value) for name, value in optimizer.metrics().items()})
        assert found[-1][f"{again.name}/relative_change"] > 0.1
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        np.testing.assert_allclose(value, found[1][name], rtol=1e-6, err_msg=name)
