"""DropConnect: what is dropped, what is scaled, and that it is undone."""

import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, assert_equal, built, model, step


def test_a_share_is_dropped_and_the_rest_scaled_up():
    network = model(50, inputs=40)
    before = arrays(network)
    optimizer = built([rw.DropConnect(0.25)], network)
    optimizer.begin_iteration()
    masks = []
    for _ in range(2):
        kernel, bias = arrays(network)
        dropped = np.abs(kernel) < 1e-6
        np.testing.assert_allclose(kernel[~dropped], before[0][~dropped] / 0.75, rtol=1e-5)
        assert dropped.mean() == pytest.approx(0.25, abs=0.03)
        np.testing.assert_array_equal(bias, before[1])
        masks.append(dropped)
        step(optimizer, network)
    assert (masks[0] != masks[1]).any()
    optimizer.end_iteration()
    assert_equal(arrays(network), before)
    with pytest.raises(ValueError, match=r"`rate` must be in \[0, 1\)\. Received: 1\.0"):
        rw.DropConnect(1.0)
