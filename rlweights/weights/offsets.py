"""Clean and live weights: live = clean + offsets, and only live weights are ever computed with."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rlweights.weights.arrays import Array, Scalar, Tensor, Variable
from rlweights.weights.backend import has_value, ops
from rlweights.weights.interventions.base import Intervention

_UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_ROOM = 8.0
"""Units in the last place by which a live weight may differ from clean plus offset, and still be it: XLA
draws and adds in one fused operation, which rounds once where a sum rounds twice."""


class Vector:
    """Some weights of one dtype, whose clean values and offsets are kept in one vector each.

    With many weights it is the number of operations that costs, and not what they compute.

    Args:
        owner: The optimizer, whose `add_variable` makes what is saved with it.
        variables: The weights.
        placements: Placements of the rules that make offsets.
    """

    def __init__(self, owner: Any, variables: Sequence[Variable], placements: Sequence[str]):
        self.variables = tuple(variables)
        self._ends = np.cumsum([math.prod(v.shape) for v in self.variables]).tolist()
        self.dtype = keras.backend.standardize_dtype(variables[0].dtype)

        def vector(name: str) -> Variable:
            shape, name = (self._ends[-1],), f"{name}_{self.dtype}"
            return owner.add_variable(shape=shape, dtype=self.dtype, initializer="zeros", name=name)

        self.clean = vector("clean")
        self.offsets = {placement: vector(placement) for placement in placements}

    def now(self) -> Tensor:
        """Returns what is in the weights, [size]."""
        return self.joined(self.variables)

    def joined(self, values: Sequence[Any]) -> Tensor:
        """Returns a value of each weight [...] as one vector [size]."""
        return ops.concatenate([ops.reshape(value, [-1]) for value in values])

    def parts(self, vector: Tensor) -> list[Tensor]:
        """Returns the parts of a vector [size], in the shapes of the weights."""
        each = ops.split(vector, self._ends[:-1]) if len(self.variables) > 1 else [vector]
        return [ops.reshape(part, v.shape) for part, v in zip(each, self.variables, strict=True)]

    def put_in(self, vector: Tensor) -> None:
        """Writes the parts of a vector [size] into the weights."""
        for variable, part in zip(self.variables, self.parts(vector), strict=True):
            variable.assign(part)


class Offsets:
    """The offsets of rules that are undone, and clean copies of the weights that have them.

    Weights without such a rule are always clean, and cost nothing. A restore is a copy: subtracting an offset
    gives back 89 % of float32 entries, and 10,000 additions and subtractions drift by 1.3e-5. An entry that
    is no longer clean plus offset was written by somebody else meanwhile: it is the clean one from there on.

    Args:
        owner: The optimizer, whose `add_variable` makes what is saved with it.
        rules: All rules, in their order.
        variables: All trainable weights.

    Attributes:
        variables: The weights that have offsets.
    """

    def __init__(self, owner: Any, rules: Sequence[Intervention], variables: Sequence[Variable]):
        self._active = owner.add_variable(shape=(), dtype="bool", initializer="zeros", name="active")
        self._rules = [rule for rule in rules if rule.undone]
        ids = {id(v) for rule in self._rules for v in rule.variables}
        chosen = [v for v in variables if id(v) in ids]
        self._placements = [
            placement
            for placement in ("during_iteration", "during_gradient")
            if any(rule.placement == placement for rule in self._rules)
        ]
        alike: dict[str, list[Variable]] = {}
        for variable in chosen:
            alike.setdefault(keras.backend.standardize_dtype(variable.dtype), []).append(variable)
        self._vectors = [Vector(owner, each, self._placements) for each in alike.values()]
        self.variables = tuple(chosen)
        self.keep()

    @property
    def active(self) -> bool:
        """Whether an iteration is under way, and weights may not be clean; outside of graphs only."""
        return has_value(self._active) and bool(ops.convert_to_numpy(self._active))

    def begin(self, step: Scalar, prepare: Callable[[], None]) -> None:
        """Begins an iteration, in the graph; the weights are clean until `put_back`.

        Args:
            step: Optimizer steps so far, a scalar integer tensor.
            prepare: Called before anything is drawn.
        """
        self.restore()
        prepare()
        self.keep()
        self._active.assign(True)
        for placement in self._placements:
            self.draw(placement, step, True)

    def activate(self) -> None:
        """Lets offsets count from here on, without drawing any."""
        self._active.assign(True)

    def end(self) -> None:
        """Ends an iteration: the weights are clean from here on."""
        self.restore()
        self._active.assign(False)

    def clean_values(self) -> list[Tensor]:
        """Returns the clean values of `variables`, whether clean or live ones are in them."""
        vectors = [(vector, vector.parts(self._clean(vector))) for vector in self._vectors]
        found = {id(v): x for vector, parts in vectors for v, x in zip(vector.variables, parts, strict=True)}
        return [found[id(v)] for v in self.variables]

    def restore(self) -> None:
        """Puts the clean weights in."""
        for vector in self._vectors:
            vector.put_in(self._clean(vector))

    def keep(self) -> list[Tensor]:
        """Takes the present weights for the clean ones; returns them, for `put_back`."""
        now = [vector.now() for vector in self._vectors]
        for vector, value in zip(self._vectors, now, strict=True):
            vector.clean.assign(value)
        return now

    def draw(self, placement: str, step: Scalar, measured: Scalar | bool) -> None:
        """Draws the offsets of a placement anew, if it has any; the weights must be clean.

        Args:
            placement: "during_iteration" or "during_gradient".
            step: Optimizer steps so far, a scalar integer tensor.
            measured: Whether the rules measure what they do.
        """
        if placement not in self._placements:
            return
        total: dict[int, Tensor] = {}
        for rule in [each for each in self._rules if each.placement == placement]:
            for variable, offset in rule.offsets(step, measured):
                total[id(variable)] = total[id(variable)] + offset if id(variable) in total else offset
        for vector in self._vectors:
            offsets = [total.get(id(v), ops.zeros(v.shape, v.dtype)) for v in vector.variables]
            vector.offsets[placement].assign(vector.joined(offsets))

    def put_back(self, kept: Sequence[Tensor] | None = None) -> None:
        """Puts the live weights in.

        Under XLA they may differ in the last bit from those that were drawn, with a fused multiply-add.

        Args:
            kept: What `keep` has just returned, if it was called; None: what is in the weights.
        """
        for i, vector in enumerate(self._vectors):
            now = vector.now() if kept is None else kept[i]
            vector.put_in(self._if_active(lambda vector=vector: vector.clean + self._offset(vector), now))

    def _clean(self, vector: Vector) -> Tensor:
        now = vector.now()
        return self._if_active(lambda: ops.where(self._is_live(vector, now), vector.clean, now), now)

    def _if_active(self, make: Callable[[], Tensor], now: Tensor) -> Tensor:
        """Returns what is made [size], or `now` where no iteration is under way: nothing is undone then.

        A branch, not a choice of entries: XLA would compute all of it anew for each weight that gets a part.
        """
        return ops.cond(ops.copy(self._active), make, lambda: ops.copy(now))

    def _offset(self, vector: Vector) -> Tensor:
        first, *others = (ops.copy(offset) for offset in vector.offsets.values())
        for each in others:
            # The branch keeps TensorFlow from merging this sum and the next one into a sum of three, whose
            # order it chooses anew in each process: the last bits of live weights would be other ones.
            first = ops.where(ops.copy(self._active), first + each, ops.zeros(first.shape, first.dtype))
        return first

    def _is_live(self, vector: Vector, now: Tensor) -> Tensor:
        """Which entries [size] are clean plus offset, of which the clean value is the copy."""
        clean, offset = ops.copy(vector.clean), self._offset(vector)
        live = clean + offset
        near = ops.abs(now - live) <= _ROOM * _UNITS[vector.dtype] * (ops.abs(clean) + ops.abs(offset))
        lost = ops.logical_and(ops.isnan(now), ops.isnan(live))  # a NaN that was drawn comes back, too
        return near | ops.equal(now, live) | lost

    # State of version 0.1 -------------------------------------------------------------------------

    @property
    def state(self) -> list[Variable]:
        """What is saved of the weights: clean values, then offsets by placement; a vector of each dtype."""
        offsets = [vector.offsets[each] for each in self._placements for vector in self._vectors]
        return [*(vector.clean for vector in self._vectors), *offsets]

    @property
    def single_names(self) -> list[str]:
        """The paths of what version 0.1 saved in their place: an array of each weight."""
        return [self._single_name(v, each) for each in ("clean", *self._placements) for v in self.variables]

    def _single_name(self, variable: Variable, placement: str) -> str:
        folder = self._active.path.rpartition("/")[0]
        return f"{folder}/{variable.path.replace('/', '_')}_{placement}"

    def packed(self, single: Mapping[str, Array]) -> dict[str, Array]:
        """Returns vectors by their paths, of the arrays that `single_names` names."""

        def pack(vector: Vector, placement: str) -> Array:
            arrays = [np.ravel(single[self._single_name(v, placement)]) for v in vector.variables]
            return np.concatenate(arrays)

        vectors = [pack(vector, each) for each in ("clean", *self._placements) for vector in self._vectors]
        return {variable.path: value for variable, value in zip(self.state, vectors, strict=True)}

    def repacked(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """Returns state by path, with vectors where version 0.1 had an array of each weight."""
        single = self.single_names
        if not single or not all(name in state for name in single):
            return dict(state)
        rest = {name: value for name, value in state.items() if name not in single}
        return rest | self.packed({name: state[name] for name in single})

    def adopted(self, store: Mapping[str, Array], variables: Sequence[Variable]) -> dict[str, Array]:
        """Returns saved state by the index of a variable, where a file of version 0.1 has other indices.

        Args:
            store: The arrays of a file, by their index.
            variables: All state of the optimizer, in the order in which it is saved.
        """
        weights, single = len(self.variables), self.single_names
        first = next((i for i, v in enumerate(variables) if self.state and v is self.state[0]), 0)
        more = len(store) - (len(variables) - len(self.state) + len(single))
        if not weights or more not in (0, weights):
            return dict(store)
        begin = first + more  # it held the weights themselves before the rest
        block = [store[str(i)] for i in range(begin, begin + len(single))]
        packed = list(self.packed(dict(zip(single, block, strict=True))).values())
        rest = [store[str(i)] for i in range(begin + len(single), len(store))]
        before = [store[str(i)] for i in range(first)]
        return {str(i): value for i, value in enumerate([*before, *packed, *rest])}
