"""Other values in a model's weights for a while, and the way back."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from rlweights.weights.arrays import Array, Tensor, Variable
from rlweights.weights.keras_internals import trainable_variables


class Exchange:
    """Weights whose own values wait outside while others are in them.

    On the way back an entry that is no longer what was put in was written by somebody else: it stays.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Variable, Array, Array]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put_in(self, variables: Sequence[Variable], values: Mapping[int, Tensor]) -> None:
        """Puts values into those of `variables` whose ids they are by.

        Raises:
            RuntimeError: If others are in already.
        """
        if self._waiting:
            raise RuntimeError("other values are in these weights already; take them out first")
        chosen = [v for v in variables if id(v) in values]
        # Both are read before anything is written: a value may be computed from the weights.
        own = [_array(v) for v in chosen]
        put = [_array(values[id(v)]) for v in chosen]
        for variable, value in zip(chosen, put, strict=True):
            variable.assign(value)
        self._waiting = [(v, a, _array(v)) for v, a in zip(chosen, own, strict=True)]

    def take_out(self) -> bool:
        """Puts the weights' own values in again.

        Returns:
            Whether nobody has written anything meanwhile.
        """
        untouched = True
        waiting, self._waiting = self._waiting, []
        for variable, own, put in waiting:
            now = _array(variable)
            same = (now == put) | ((now != now) & (put != put))
            untouched &= bool(np.all(same))
            variable.assign(np.where(same, own, now))
        return untouched

    def keep(self) -> None:
        """Leaves what was put in where it is, for good."""
        self._waiting = []

    def own_values(self) -> dict[int, Array]:
        """Returns the values that wait outside, by the identity of their weights."""
        return {id(variable): own for variable, own, _ in self._waiting}

    def resume(self, variables: Sequence[Variable], own: Sequence[Array]) -> None:
        """Takes the present values of weights, from a file, for what was put in, and `own` for what waits."""
        self._waiting = [(v, np.asarray(a), _array(v)) for v, a in zip(variables, own, strict=True)]


def _array(value: Any) -> Array:
    """The present value on the host, as a copy."""
    return np.array(ops.convert_to_numpy(value))


class Exchanging:
    """Looks at the clean and the evaluated weights of an optimizer with rules, from outside of graphs."""

    built: bool
    interventions: Sequence[Any]
    masks: Any
    inner: Any
    kept: Any
    _held: Exchange
    _offsets: Any
    _under_way: bool

    @contextlib.contextmanager
    def clean(self) -> Iterator[None]:
        """Holds the clean weights in the model for the time of a `with` block; draws nothing."""
        with self._exchanged({}):
            yield

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Like `clean`, but with what rules show evaluations: averages, rounded or slow weights."""
        with self._exchanged(self._evaluated()):
            yield

    @property
    def holds(self) -> bool:
        """Whether `hold` is on."""
        return bool(self._held)

    def hold(self) -> None:
        """Like `evaluation`, but until `release`, `begin_iteration` or `end_iteration`."""
        if not self._held:
            self._held.put_in(trainable_variables(self), self._clean() | self._evaluated())

    def release(self) -> bool:
        """Ends `hold`; outside of graphs.

        Returns:
            Whether nobody has written to the weights meanwhile; what was written stays.
        """
        return self._held.take_out()

    def keep_held(self) -> None:
        """Ends `hold`, and what it has put in stays."""
        self._held.keep()

    @contextlib.contextmanager
    def _exchanged(self, values: Mapping[int, Any]) -> Iterator[None]:
        """Holds clean weights, or of the variables with an id in `values` these, in the model."""
        exchange = Exchange()
        exchange.put_in(trainable_variables(self), {**self._clean(), **values})
        try:
            yield
        finally:
            exchange.take_out()

    def _clean(self) -> dict[int, Any]:
        """The clean values of the weights in which there may be others, by the identity of the weights."""
        if not self._under_way:  # then the weights are clean, and it is their copies that may be old
            return self._held.own_values()
        clean = dict(zip(map(id, self._offsets.variables), self._offsets.clean_values(), strict=True))
        return clean | self._held.own_values()

    def _evaluated(self) -> dict[int, Any]:
        """What evaluations see of the weights that are shown otherwise, by the identity of the weights."""
        if not self.built:
            return {}
        clean, weights = self._clean(), {id(v): v for v in trainable_variables(self)}
        now = {key: ops.copy(clean.get(key, weight)) for key, weight in weights.items()}
        found = self._of_inner(now)
        for rule in self.interventions:
            for weight in rule.variables if rule.evaluates else ():
                found[id(weight)] = rule.evaluated(weight, found.get(id(weight), now[id(weight)]))
        for rule in self.interventions:
            for weight in rule.variables if rule.exports else ():
                found[id(weight)] = rule.exported(weight, found.get(id(weight), now[id(weight)]))
        return {key: self.masks.held(weights[key], value, now[key]) for key, value in found.items()}

    def _of_inner(self, clean: Mapping[int, Any]) -> dict[int, Any]:
        """What the inner optimizer means evaluations to see: x of the schedule-free y = b x + (1 - b) z."""
        if not isinstance(self.inner, keras.optimizers.ScheduleFreeAdamW):
            return {}
        beta, found = self.inner.beta_1, {}
        for weight in trainable_variables(self):
            z = self.kept.named(weight)["momentum"]
            found[id(weight)] = (clean[id(weight)] - (1.0 - beta) * z) / beta
        return found
