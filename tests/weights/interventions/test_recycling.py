"""Recycling: exactly the dormant units, what feeds what, and when scores are used."""

import keras
import numpy as np
import pytest

import rlweights as rw
from support.dense import arrays, assert_equal, built, model, step

NAN = float("nan")


def recycler(network, rule=None):
    """An optimizer with a step behind it, so that its slots are not empty, within an iteration."""
    optimizer = built([rule or rw.Recycling()], network, keras.optimizers.Adam(0.0))
    optimizer.begin_iteration()
    step(optimizer, network, gradient=1.0)
    return optimizer


def recycled(optimizer) -> float:
    return float(optimizer.metrics()["recycling/recycled_units"])


def test_exactly_the_dormant_units_begin_anew():
    network = model(3, 2)
    optimizer = recycler(network)
    before = arrays(network)
    optimizer.feedback["dormant_score/network/hidden_0"] = [1.0, 0.02, 0.5]
    optimizer.end_iteration()
    kernel, bias, following, last = arrays(network)
    np.testing.assert_array_equal(kernel[:, [0, 2]], before[0][:, [0, 2]])
    assert not np.any(kernel[:, 1] == before[0][:, 1])
    np.testing.assert_array_equal(bias, before[1] * [1, 0, 1])
    np.testing.assert_array_equal(following, before[2] * [[1], [0], [1]])
    np.testing.assert_array_equal(last, before[3])
    assert recycled(optimizer) == 1.0
    assert float(optimizer.metrics()["recycling/recycled"]) == pytest.approx(1 / 3)


def test_the_slots_of_exactly_these_entries_become_zero():
    network = model(3, 2)
    optimizer = recycler(network)
    slots = [optimizer.slots(v) for v in network.trainable_variables]
    assert [len(each) for each in slots] == [2] * 4
    before = [[slot.numpy().copy() for slot in each] for each in slots]
    optimizer.feedback["dormant_score/network/hidden_0"] = [1.0, 0.02, 0.5]
    optimizer.end_iteration()
    kept = [np.array([1, 0, 1]), np.array([1, 0, 1]), np.array([[1], [0], [1]]), np.array([1])]
    for each, old, mask in zip(slots, before, kept, strict=True):
        for slot, value in zip(each, old, strict=True):
            assert np.all(value != 0.0)
            np.testing.assert_array_equal(slot.numpy(), value * mask)


def test_fresh_weights_have_the_scale_of_the_initial_ones():
    network = model(300, 2, inputs=40)
    optimizer = recycler(network)
    scale = np.sqrt(np.mean(arrays(network)[0] ** 2))
    optimizer.feedback["dormant_score/network/hidden_0"] = [0.0] * 300
    optimizer.end_iteration()
    fresh = arrays(network)[0]
    assert np.sqrt(np.mean(fresh**2)) == pytest.approx(scale, rel=0.03)
    assert fresh.mean() == pytest.approx(0.0, abs=0.03)


def test_a_score_is_used_once_and_what_was_not_measured_is_left_alone():
    network = model(3, 2)
    optimizer = recycler(network)
    before = arrays(network)
    optimizer.end_iteration()  # nothing was measured
    assert_equal(arrays(network), before)
    optimizer.feedback["dormant_score/network/hidden_0"] = [0.0, NAN, 0.5]
    optimizer.begin_iteration()
    optimizer.end_iteration()
    assert recycled(optimizer) == 1.0
    once = arrays(network)
    optimizer.begin_iteration()
    optimizer.end_iteration()  # nothing was measured since
    assert_equal(arrays(network), once)
    assert recycled(optimizer) == 0.0


def test_the_threshold_is_included():
    network = model(3, 2)
    optimizer = recycler(network, rw.Recycling(tau=0.25))
    optimizer.feedback["dormant_score/network/hidden_0"] = [0.25, 0.2501, 0.1]
    optimizer.end_iteration()
    assert recycled(optimizer) == 2.0


def test_every_third_iteration():
    network = model(3, 2)
    optimizer = built([rw.Recycling(every=3)], network)
    found = []
    for _ in range(6):
        optimizer.begin_iteration()
        optimizer.feedback["dormant_score/network/hidden_0"] = [0.0, 1.0, 1.0]
        optimizer.end_iteration()
        found.append(recycled(optimizer))
    assert found == [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]


def test_after_steps_a_score_waits_for_the_step_that_is_due():
    network = model(3, 2)
    optimizer = built([rw.Recycling(every=2, placement="after_step")], network)
    optimizer.feedback["dormant_score/network/hidden_0"] = [0.0, 1.0, 1.0]
    found = []
    for _ in range(4):
        step(optimizer, network)
        found.append(recycled(optimizer))
    assert found == [0.0, 1.0, 0.0, 0.0]


# What feeds what --------------------------------------------------------------------------------------


def stack(*layers, inputs=(4,), name="network"):
    return keras.Sequential([keras.Input(inputs), *layers], name=name)


class Networks:
    """Several networks under one optimizer."""

    def __init__(self, *networks):
        self.trainable_variables = [v for n in networks for v in n.trainable_variables]


def scored(network, **arguments) -> set[str]:
    optimizer = built([rw.Recycling(**arguments)], network)
    return {name.removeprefix("dormant_score/") for name in optimizer.feedback}


def test_networks_are_chains_of_their_own_and_their_last_layers_stay():
    networks = Networks(model(5, 6, 2, name="policy"), model(5, 1, name="value"))
    assert scored(networks) == {"policy/hidden_0", "policy/hidden_1", "value/hidden_0"}
    assert scored(networks, on="policy/.*") == {"policy/hidden_0", "policy/hidden_1"}


def trunk_and_heads():
    """A trunk of two layers whose outputs two heads take."""
    heads = [model(2, inputs=6, name="policy"), model(1, inputs=6, name="value")]
    return Networks(model(5, 6, name="trunk"), *heads)


def test_whether_heads_take_a_trunks_outputs_must_be_said():
    with pytest.raises(ValueError, match=r"policy/hidden_0, value/hidden_0 may or may not take the outputs"):
        built([rw.Recycling()], trunk_and_heads())
    heads = ["policy/hidden_0", "value/hidden_0"]
    assert scored(trunk_and_heads(), units={"hidden_1": heads}) == {"trunk/hidden_0", "trunk/hidden_1"}
    assert scored(trunk_and_heads(), units={"trunk/hidden_1": []}) == {"trunk/hidden_0"}


def test_all_layers_that_take_a_units_output_forget_it():
    networks = trunk_and_heads()
    rule = rw.Recycling(units={"trunk/hidden_1": ["policy/hidden_0", "value/hidden_0"]})
    optimizer = recycler(networks, rule)
    before = arrays(networks)
    optimizer.feedback["dormant_score/trunk/hidden_1"] = [0.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    optimizer.end_iteration()
    for old, new in zip(before[4::2], arrays(networks)[4::2], strict=True):
        np.testing.assert_array_equal(new, old * (np.arange(6) > 0)[:, None])


def test_two_layers_into_one():
    networks = Networks(model(3, name="a"), model(3, name="b"), model(2, inputs=3, name="sum"))
    rule = rw.Recycling(units={"a/hidden_0": "sum/hidden_0", "b/hidden_0": "sum/hidden_0"})
    optimizer = recycler(networks, rule)
    before = arrays(networks)[4]
    optimizer.feedback["dormant_score/a/hidden_0"] = [0.0, 1.0, 1.0]
    optimizer.feedback["dormant_score/b/hidden_0"] = [1.0, 1.0, 0.0]
    optimizer.end_iteration()
    np.testing.assert_array_equal(arrays(networks)[4], before * [[0], [1], [0]])


def test_channels_are_recycled_through_convolutions_and_a_flattening():
    network = stack(
        keras.layers.Conv2D(3, 2, activation="relu", name="first"),
        keras.layers.Conv2D(2, 2, activation="relu", name="second"),
        keras.layers.Flatten(),
        keras.layers.Dense(4, name="head"),
        inputs=(5, 5, 1),
    )
    network.get_layer("second").bias.assign([-100.0, 0.1])  # its first channel is dead
    x = np.random.default_rng(0).normal(size=(8, 5, 5, 1)).astype("float32")
    optimizer = built([rw.Recycling()], network)
    assert set(optimizer.feedback) == {"dormant_score/network/first", "dormant_score/network/second"}
    outputs, before = network(x).numpy(), network.get_layer("head").kernel.numpy().copy()
    optimizer.feedback["dormant_score/network/second"] = [0.0, 2.0]
    optimizer.begin_iteration()
    optimizer.end_iteration()
    kernel = network.get_layer("head").kernel.numpy().reshape(3, 3, 2, 4)
    np.testing.assert_array_equal(kernel[:, :, 0], 0.0)
    np.testing.assert_array_equal(kernel[:, :, 1], before.reshape(3, 3, 2, 4)[:, :, 1])
    np.testing.assert_allclose(network(x).numpy(), outputs, atol=1e-6)  # a dead unit was no part of it


def dense(units, name):
    return keras.layers.Dense(units, name=name)


REFUSED = {
    "a layer that does not fit the next": (
        lambda: stack(dense(4, "a"), keras.layers.Reshape((2, 2)), dense(3, "b")),
        {},
        r"'network/a' has 4 units and 'network/b' takes 2 inputs. Say what takes its outputs, `units=",
    ),
    "a named layer that does not fit": (
        lambda: model(3, 5, 2),
        {"units": {"hidden_0": "hidden_2"}},
        "'network/hidden_0' has 3 units and 'network/hidden_2' takes 5 inputs",
    ),
    "a layer that does not exist": (lambda: model(3, 2), {"units": {"nope": "hidden_1"}}, "no layer 'nope'"),
    "a name that fits two layers": (
        lambda: Networks(model(3, 2, name="a"), model(3, 2, name="b")),
        {"units": {"hidden_0": "hidden_1"}},
        "more than one layer 'hidden_0'",
    ),
    "a successor that is not selected": (
        lambda: model(3, 2),
        {"on": ".*hidden_0/.*"},
        "'network/hidden_1' takes the outputs of 'network/hidden_0' and must be selected too",
    ),
    "a named layer that is not selected": (
        lambda: model(3, 4, 2),
        {"on": ".*hidden_[12]/.*", "units": {"hidden_0": "hidden_1"}},
        "`units` names 'network/hidden_0', which is not selected",
    ),
    "several kernels": (
        lambda: stack(keras.layers.SimpleRNN(3, name="memory"), dense(2, "head"), inputs=(5, 4)),
        {"units": {"simple_rnn_cell": "head"}},
        "simple_rnn_cell' has several kernels",
    ),
    "one layer": (lambda: model(3), {}, "no layer is followed by another that takes its outputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_an_error(case):
    make, arguments, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        built([rw.Recycling(**arguments)], make())


def test_an_optimizer_of_factored_slots_is_refused():
    with pytest.raises(ValueError, match="state of network/hidden_0/kernel that belongs to no single unit"):
        built([rw.Recycling()], model(3, 2), keras.optimizers.Adafactor(0.1))


def test_every_must_be_positive():
    with pytest.raises(ValueError, match=r"`every` must be at least 1\. Received: 0"):
        rw.Recycling(every=0)
