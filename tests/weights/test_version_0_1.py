"""A model that version 0.1 has saved goes on in this one as it would have gone on there."""

from pathlib import Path

import keras
import numpy as np

import rlweights as rw

DATA = Path(__file__).parents[1] / "support" / "data"
"""`version_0_1.keras` is a model after two epochs, `version_0_1.npz` its weights after two more."""


def loaded():
    assert rw.InterventionOptimizer, (
        "a name of ours, used before: Keras then knows our classes (so it was in 0.1)"
    )
    return keras.saving.load_model(DATA / "version_0_1.keras")


def test_a_model_of_version_0_1_with_rules_that_are_undone_goes_on():
    model = loaded()
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(16, width)).astype("float32") for width in (4, 1))
    monitor = rw.WeightMonitor()
    model.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    with np.load(DATA / "version_0_1.npz") as expected:
        assert len(expected.files) == len(model.trainable_variables) == 4
        for variable in model.trainable_variables:
            # Equal to the last bit on the processor that made the file; others may round otherwise.
            found = expected[variable.path.replace("/", ":")]
            np.testing.assert_allclose(variable.numpy(), found, rtol=0, atol=1e-6, err_msg=variable.path)


def test_its_optimizer_is_where_it_was():
    optimizer = loaded().optimizer
    assert int(optimizer.iterations) == 4
    assert [type(rule).__name__ for rule in optimizer.interventions] == ["Clipping", "Noise", "Averaging"]
    assert len(optimizer.inner.variables) == 2 + 2 * 4
    for average in optimizer.interventions[2].averages:
        assert np.asarray(average).any()
