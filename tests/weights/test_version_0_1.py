"""A model that version 0.1 has saved goes on in this one."""

from pathlib import Path

import keras
import numpy as np

import rlweights as rw

DATA = Path(__file__).parents[1] / "support" / "data"
"""`version_0_1.keras` is a model after two epochs."""


def loaded():
    assert rw.InterventionOptimizer, (
        "a name of ours, used before: Keras then knows our classes (so it was in 0.1)"
    )
    return keras.saving.load_model(DATA / "version_0_1.keras")


def test_a_model_of_version_0_1_with_rules_that_are_undone_goes_on():
    """With other draws than there: since then a rule draws once for all its weights."""
    model = loaded()
    before = {v.path: v.numpy() for v in model.trainable_variables}
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(16, width)).astype("float32") for width in (4, 1))
    monitor = rw.WeightMonitor()
    model.fit(x, y, epochs=2, batch_size=8, shuffle=False, verbose=0, callbacks=[monitor])
    assert len(model.trainable_variables) == 4
    for variable in model.trainable_variables:
        assert np.isfinite(variable.numpy()).all()
        assert not np.array_equal(variable.numpy(), before[variable.path])
    assert int(model.optimizer.iterations) == 8


def test_what_it_kept_of_each_weight_is_one_vector_now():
    """Clean weights and offsets come from the places in which version 0.1 saved those of single weights."""
    model = loaded()
    optimizer = model.optimizer
    vectors = {v.name: v.numpy() for v in optimizer.variables if v.name.endswith("_float32")}
    weights = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    np.testing.assert_array_equal(vectors["clean_float32"], weights)
    offsets = [name for name in vectors if name != "clean_float32"]
    assert offsets
    assert all(np.abs(vectors[name]).min() > 0.0 for name in offsets)
    path, state = optimizer.variables[0].path.rpartition("/")[0], {}
    for variable in model.trainable_variables:
        for kept in ("clean", *(name.removesuffix("_float32") for name in offsets)):
            state[f"{path}/{variable.path.replace('/', '_')}_{kept}"] = np.full(variable.shape, len(state))
    packed = optimizer.of_this_version({**state, "else": 1})
    assert packed.pop("else") == 1
    assert {name.rpartition("/")[2] for name in packed} == set(vectors)
    assert all(value.shape == weights.shape for value in packed.values())


def test_its_optimizer_is_where_it_was():
    optimizer = loaded().optimizer
    assert int(optimizer.iterations) == 4
    assert [type(rule).__name__ for rule in optimizer.interventions] == ["Clipping", "Noise", "Averaging"]
    assert len(optimizer.inner.variables) == 2 + 2 * 4
    for average in optimizer.interventions[2].averages:
        assert np.asarray(average).any()
