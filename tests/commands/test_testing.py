"""The battery itself: rules of one's own that pass it, and rules that break one promise each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

import rlweights as rw


class SignFlip(rw.Intervention):
    """A rule of one's own, as a researcher would write it."""

    metric_names = ("flipped",)

    def __init__(self, fraction, **kwargs):
        super().__init__(**kwargs)
        self.fraction = self.strength(fraction, "fraction", minimum=0.0)

    def update(self, weight, step):
        drawn = self.normal(weight, step)
        return ops.where(drawn < ops.cast(self.fraction(step), weight.dtype), -weight, weight)

    def observe(self, before, after, step):
        pairs = zip(before, after, strict=True)
        return {"flipped": sum(ops.sum(ops.cast(b != a, "float32")) for b, a in pairs)}  # pyright: ignore[reportCallIssue]


def test_a_rule_of_ones_own_passes_in_one_line():
    rw.testing.check(SignFlip(0.01))


class Passive(rw.Intervention):
    """Does nothing; the broken rules below are this one with one thing wrong."""

    def update(self, weight, step):
        return weight


class Widening(Passive):
    def update(self, weight, step):
        return ops.concatenate([weight, weight], axis=-1)


class Retyping(Passive):
    """Right in float32, where it was tried out."""

    def update(self, weight, step):
        return ops.cast(weight, "float32") * 0.9


class Writing(Passive):
    """Assigns by itself."""

    def update(self, weight, step):
        weight.assign(0.9 * weight)
        return weight


class Overreaching(Passive):
    """Writes into other weights."""

    def finish(self, step):
        for other in self.all_variables:
            other.assign(other + 0.1)


class FrozenNoise(Passive):
    """Draws with NumPy: a graph freezes the draw."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.rng = np.random.default_rng(0)

    def update(self, weight, step):
        return weight + ops.cast(self.rng.normal(size=weight.shape), weight.dtype)


class Counting(Passive):
    """Keeps a number in Python, between its calls."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = 0

    def update(self, weight, step):
        return weight * (1.0 - 0.01 * self.count)

    def finish(self, step):
        self.count += 1


class Branching(Passive):
    """Decides in Python on what is a tensor in a graph."""

    def update(self, weight, step):
        return weight * 0.5 if float(step) > 0.0 else weight + 0.0


class LateState(Passive):
    """Creates a variable while it is traced."""

    count = None

    def begin_iteration(self, step):
        if self.count is None:
            self.count = tf.Variable(0.0)
        self.count.assign_add(1.0)


class HiddenState(Passive):
    """Keeps state in a variable that nobody saves."""

    def build(self, variables):
        self.scale = keras.Variable(1.0)

    def update(self, weight, step):
        return weight * ops.cast(self.scale, weight.dtype)

    def finish(self, step):
        self.scale.assign(0.9 * self.scale)


class OffTheGPU(Passive):
    def build(self, variables):
        self.add_variable("count", dtype="int32", initial=0)


class NotFinite(Passive):
    metric_names = ("bad",)

    def observe(self, before, after, step):
        return {"bad": ops.log(-1.0)}


class Unannounced(Passive):
    def observe(self, before, after, step):
        return {"surprise": 0.0}


class Silent(Passive):
    metric_names = ("promised",)


class Forgetful(Passive):
    """Does not remember what it was made with."""

    def get_config(self):
        return super().get_config() | {"seed": self.seed + 1}


class Unreadable(Passive):
    def get_config(self):
        return super().get_config() | {"colour": "red"}


BROKEN = {
    Widening: r"`update` does not keep shape and dtype: .*\(4, 6\).* became .*\(4, 12\)",
    Retyping: r"`update` does not keep shape and dtype: .*bfloat16.* became .*float32",
    Writing: "`update` changes model/hidden/kernel: it must be pure",
    Overreaching: "model/(hidden|norm|head)/.* is not selected, and changes in eager mode",
    FrozenNoise: "two calls of `update` with the same weight and step differ",
    Counting: "differs by .* in a graph and in eager mode: a rule may keep no state of Python's",
    Branching: "it does not hold that the rule works in a graph",
    LateState: "the iteration is traced 2 times in a graph, and not once",
    HiddenState: "a loaded model goes on differently: some state is not saved",
    OffTheGPU: "off_the_gpu_count is int32, which programs on a GPU do not find in its memory: take 'int'",
    NotFinite: "the metric 'not_finite/bad' is nan in eager mode",
    Unannounced: r"`observe` returns \['surprise'\], and `metric_names` are \[\]",
    Silent: r"`observe` returns \[\], and `metric_names` are \['promised'\]",
    Forgetful: "the configuration changes on its way",
    Unreadable: "it does not hold that the rule comes back from its configuration: .*colour",
}


@pytest.mark.parametrize("rule", BROKEN, ids=lambda rule: rule.__name__)
def test_a_broken_rule_fails_and_is_told_why(rule):
    with pytest.raises(AssertionError, match=BROKEN[rule]):
        rw.testing.check(rule(on="model/hidden/.*"))


def test_what_is_undone_must_come_back_to_the_last_bit():
    class Leaking(rw.Intervention):
        placement = "during_iteration"

        def delta(self, weight, step):
            return 0.1 * ops.ones_like(weight)  # pyright: ignore[reportOperatorIssue]

        def finish(self, step):
            for vector in self._owner._offsets._vectors:
                vector.clean.assign(vector.clean + 1e-6)

    with pytest.raises(AssertionError, match="does not come back to the last bit in eager mode"):
        rw.testing.check(lambda: Leaking())


def test_a_rule_that_cannot_be_saved_passes_as_a_function_and_feedback_reaches_it():
    def decay(weight, step, feedback):
        return -ops.cast(feedback["rate"], weight.dtype) * weight

    def make():
        made.append(rw.Increment(decay, feedback={"rate": 0.0}, placement="during_gradient"))
        return made[-1]

    made: list[rw.Increment] = []
    rw.testing.check(make, feedback={"rate": 0.5})
    assert float(made[-1].metrics["relative_change"]) == pytest.approx(0.5, rel=1e-5)
    with pytest.raises(KeyError, match="no rule reads a feedback 'ratio'"):
        rw.testing.check(make, feedback={"ratio": 0.5})
