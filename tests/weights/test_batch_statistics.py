"""Statistics of batch normalization, measured anew."""

import keras
import numpy as np
import pytest

import rlweights as rw


def test_they_are_the_means_over_the_batches():
    norm = keras.layers.BatchNormalization(momentum=0.9)
    model = keras.Sequential([keras.Input((3,)), norm])
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(64, 3)).astype("float32")
    norm.moving_mean.assign([9.0, 9.0, 9.0])
    assert rw.renew_batch_statistics(model, x, batch_size=16) is model
    batches = x.reshape(4, 16, 3)
    np.testing.assert_allclose(norm.moving_mean.numpy(), x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), batches.var(axis=1).mean(axis=0), rtol=1e-5)
    assert norm.momentum == 0.9


def test_there_must_be_something_to_measure():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="plain has no BatchNormalization"):
        rw.renew_batch_statistics(model, np.ones((2, 3)))
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    with pytest.raises(ValueError, match="`x` has no samples"):
        rw.renew_batch_statistics(model, np.ones((0, 3)))
