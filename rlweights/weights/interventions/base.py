"""The one concept: a rule that rewrites weights inside the compiled training step."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import keras

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.branches import only_if
from rlweights.weights.cadence import is_looked_at
from rlweights.weights.interventions.configuration import Configured, snake_case
from rlweights.weights.interventions.context import SMALL, Context
from rlweights.weights.interventions.feedback import Feedback
from rlweights.weights.keras_internals import global_seed
from rlweights.weights.selection import Selector, kernels_and_biases, select

PLACEMENTS = ("after_step", "during_gradient", "during_iteration", "after_iteration")


class Intervention(Configured, Context):
    """A rule that rewrites weights inside the compiled training step.

    A subclass implements one pure method of one weight: `update` returns its new value (and is written
    with `assign`), or `delta` returns what to add (written with `assign_add`). All else has a default: state
    is created in `build` and adapted in `begin_iteration`, `survey` (which looks at all weights at once) or
    `finish`; `every` and `due` say when the rule acts, `mask` which entries it holds, `evaluated` what
    evaluations and exports see, `observe` what is measured.

    ======================  ===================================================  ===================
    placement               the weights change                                   then
    ======================  ===================================================  ===================
    ``after_step``          after each optimizer step                            kept
    ``during_gradient``     while one loss and its gradient are computed         undone
    ``during_iteration``    from a rollout through its updates, by one draw      undone
    ``after_iteration``     once between two iterations                          kept
    ======================  ===================================================  ===================

    Args:
        on: Which weights, see `rlweights.select`; None takes the rule's own default.
        placement: When, one of the table above; None takes the rule's own default.
        name: Names the metrics `<name>/<metric>`; None makes it from the class name.
        seed: Seed of the rule's random draws; None: that of `keras.utils.set_random_seed`, or 0.
    """

    placement: str = "after_step"
    placements: ClassVar[Sequence[str]] = PLACEMENTS
    """The placements that make sense for the rule; any other is refused."""
    default_on: ClassVar[Selector | None] = None
    """What `on=None` selects; None: every trainable weight."""
    when: ClassVar[str] = ""
    """What the rule is for, in half a sentence: for the gallery."""
    example: ClassVar[str] = ""
    """An expression that makes one, for the gallery."""
    evidence: ClassVar[Sequence[tuple[str, str]]] = ()
    """Studies, by their names, each with what it has measured of the rule; for the gallery."""
    promise: str | None = None
    """What holds of a weight that the rule has rewritten, in a word or two; see `preserves`."""
    every: int = 1
    """Uses of the placement from one time that the rule acts to the next; set it in `__init__`."""
    metric_names: Sequence[str] = ()
    """Names of the metrics that `observe` returns besides `relative_change`; `build` may set others."""

    def __init__(
        self,
        on: Any = None,
        *,
        placement: str | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
        Context.__init__(self)
        if type(self).update is Intervention.update and type(self).delta is Intervention.delta:
            raise TypeError(f"{type(self).__name__} must implement `update` or `delta`.")
        both = type(self).update is not Intervention.update and type(self).delta is not Intervention.delta
        if both:
            raise TypeError(f"{type(self).__name__} must implement `update` or `delta`, not both.")
        self.on = self.default_on if on is None and self.default_on is not None else select(on)
        self.placement = self.placement if placement is None else placement
        if self.placement not in self.placements:
            raise ValueError(
                f"{type(self).__name__} takes placement {' or '.join(map(repr, self.placements))}. "
                f"Received: {placement!r}"
            )
        self.name = name or snake_case(type(self).__name__)
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise ValueError(f"`name` takes letters, digits and _ . - only. Received: {name!r}")
        self.seed = (global_seed() or 0) if seed is None else seed
        self.metrics: dict[str, Any] = {}

    # What a rule writes ---------------------------------------------------------------------------

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the rule's state with `add_variable`. Called once, outside of any graph."""

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the new value of `weight` [...]. Pure: it must not assign.

        A rule that only watches returns `weight` itself: then nothing is written.

        Args:
            weight: `keras.Variable` (in a rule that needs nothing of the variable, any tensor).
            step: Scalar integer tensor, the number of optimizer steps before this one.
        """
        raise NotImplementedError

    def delta(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns what to add to `weight` [...]. Pure: it must not assign (arguments as `update`)."""
        raise NotImplementedError

    def due(self, step: Scalar) -> Scalar | None:
        """Returns whether the rule acts at this use of its placement, a scalar bool; None: always.

        When it does not, nothing of it is computed. By default it acts each `every` uses, the first time at
        the use number `every`.
        """
        return None if self.every == 1 else ops.equal(ops.mod(self._applications + 1, self.every), 0)

    def begin_iteration(self, step: Scalar) -> None:
        """Adapts the rule's own state, in the graph, before an iteration and its draw begin."""

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Looks at all selected weights at once, in the graph, before the rule rewrites the first of them.

        The weights are clean. What is found out (a threshold, a norm, a mask) is assigned to the rule's own
        state, where `update` and `delta` read it.
        """

    def finish(self, step: Scalar) -> None:
        """Updates the rule's own state, in the graph, after all its weights were rewritten."""

    def update_slot(self, weight: Variable, slot: Variable, step: Scalar) -> Tensor | None:
        """Returns the new value of one optimizer slot of `weight`, or None to leave it alone."""
        return None

    def mask(self, weight: Variable) -> Tensor | None:
        """Returns which entries of `weight` are free, bool, broadcast to [...]; None: all of them.

        The others are held at `anchor`: nothing else moves them, and the optimizer sees no gradient of them.
        """
        return None

    def anchor(self, weight: Variable) -> Tensor | None:
        """Returns where entries that are not free are held, broadcast to [...]; None: where they are."""
        return ops.zeros([], weight.dtype)

    def evaluated(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns which weight evaluations and exports see in the place of `weight` [...]: an average, ...

        Args:
            weight: The weight.
            value: What the rules before this one let them see, at first the clean weight [...].
        """
        return value

    def exported(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns in which form evaluations and exports see it [...]: rounded, as signs, ...

        Args:
            weight: The weight.
            value: What `evaluated` of all rules and `exported` of those before have made of it [...].
        """
        return value

    def preserves(self, promise: str) -> bool:
        """Returns whether what another rule's `promise` says of a weight still holds after this rule.

        A rule that breaks a promise says so, and whoever puts it behind that other one is warned.
        """
        return True

    def limit(self, weight: Variable, step: Scalar) -> Any:
        """Returns the largest |w| that the rule leaves behind, a scalar, for charts to draw; None: any."""
        return None

    def observe(self, before: Sequence[Any], after: Sequence[Any], step: Scalar) -> Mapping[str, Any]:
        """Returns the scalars `metric_names`, given all selected weights before and after the rule."""
        return {}

    # What the optimizer calls ---------------------------------------------------------------------

    def bind(self, owner: Any, variables: Sequence[Variable], chosen: Sequence[int] | None = None) -> None:
        """Resolves the selection and creates all state.

        Args:
            owner: The `InterventionOptimizer`.
            variables: All trainable weights.
            chosen: Indices of the weights that a saved optimizer's rule had selected; None: ask `on`.

        Raises:
            ValueError: If nothing is selected, or if the rule belongs to an optimizer of other weights.
        """
        if self._owner is not None and not {id(v) for v in self.all_variables} & {id(v) for v in variables}:
            raise ValueError(
                f"{self.name} belongs to another optimizer already, with other weights: a rule has state, so "
                f"give each optimizer one of its own"
            )
        try:
            self.variables = self.on(variables) if chosen is None else [variables[i] for i in chosen]
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        if self._arguments.get("seed") is None:
            self.seed = global_seed() or 0
        self.all_variables = list(variables)
        self._places = {id(v): i for i, v in enumerate(self.variables)}
        self._owner = owner
        for value in self._arguments.values():
            if isinstance(value, Feedback):
                owner.feedback.bind(value)
        self._applications = self.add_variable("applications", dtype="int", initial=0)
        self.build(self.variables)
        if self.undone and self.due(ops.zeros([], "int32")) is not None:
            raise ValueError(
                f"{self.name}: what is undone is drawn anew each time, so `every` and `due` do not go with "
                f"the placement {self.placement!r}"
            )
        names = ("relative_change", *self.metric_names)
        self.metrics = {name: self.add_variable(name.replace("/", ".")) for name in names}

    @property
    def adds(self) -> bool:
        """Whether the rule gives differences (`delta`) rather than new values (`update`)."""
        return type(self).delta is not Intervention.delta

    def try_on(self, variable: Variable, step: Scalar) -> None:
        """Computes what the rule would write to a weight, and writes nothing.

        Raises:
            ValueError: If it would not keep shape and dtype; and whatever a rule of the user's own raises.
        """
        value = (self.delta if self.adds else self.update)(variable, step)
        self._checked(value, variable, "delta" if self.adds else "update")

    def acting_on(self, given: Collection[int] | None = None) -> list[Variable]:
        """Returns the selected weights that are not frozen and, if that is said, with an id in `given`."""
        chosen = [v for v in self.variables if getattr(v, "trainable", True)]
        return chosen if given is None else [v for v in chosen if id(v) in given]

    def apply(self, step: Scalar, given: Collection[int] | None = None) -> None:
        """Rewrites the selected weights in place and keeps the change.

        Args:
            step: Optimizer steps so far, a scalar integer tensor.
            given: Ids of the weights that the optimizer's step was given; None: all. Others, and frozen ones,
                are left alone, and a rule of which none is given does nothing and counts nothing.
        """
        acting = self.acting_on(given)
        if not acting:
            return
        due = self.due(step)
        if due is not None:
            only_if(due, lambda: self._act(acting, step, True))
        elif self.placement == "after_step":
            self._act(acting, step, is_looked_at(step, self._owner.metrics_every))
        else:
            self._act(acting, step, True)
        self._applications.assign_add(1)

    def _act(self, acting: Sequence[Variable], step: Scalar, measured: Scalar | bool) -> None:
        """Rewrites weights and, where that is `measured`, says what it has done."""
        self.survey(self.variables, step)
        always = measured is True
        before = _values(self.variables) if always or self.touches_slots else []
        if not always:
            # What nobody looks at is not measured: with small batches or many weights that costs more than
            # the rule. What will be written is computed for it a second time, and nothing is copied.
            only_if(measured, lambda: self._foretell(acting, step))
        with self._one_draw():
            for variable in acting:
                self._rewrite(variable, step)
                for slot in self._owner.slots(variable) if self.touches_slots else ():
                    if self._owner.kept.mirrors(slot):
                        old = before[self._places[id(variable)]]
                        slot.assign(ops.where(ops.equal(old, variable), slot, variable))
                    elif (rewritten := self.update_slot(variable, slot, step)) is not None:
                        slot.assign(rewritten)
        if always:
            self._record(before, _values(self.variables), step)
        self.finish(step)

    def _foretell(self, acting: Sequence[Variable], step: Scalar) -> None:
        """Measures what the rule is about to do."""
        before = _values(self.variables)
        after = list(before)
        with self._one_draw():  # what is drawn in the branch stays there
            for variable in acting:
                place, value = self._places[id(variable)], self._new_value(variable, step)
                after[place] = after[place] if value is variable else value
        self._record(before, after, step)

    def _rewrite(self, variable: Variable, step: Scalar) -> None:
        if self.adds:
            variable.assign_add(self._difference(variable, step))
        elif (new := self._new_value(variable, step)) is not variable:
            variable.assign(new)

    def _difference(self, variable: Variable, step: Scalar) -> Tensor:
        """What the rule adds to a weight [...]; zero where an entry is held."""
        if self.adds:
            change = self._checked(self.delta(variable, step), variable, "delta")
        else:
            change = self._checked(self.update(variable, step), variable, "update") - ops.copy(variable)
        return self._owner.masks.free(variable, change)

    def _new_value(self, variable: Variable, step: Scalar) -> Tensor:
        """What the rule writes to a weight [...], or the weight itself if it writes nothing."""
        if self.adds:
            return variable + self._difference(variable, step)
        new = self.update(variable, step)
        if new is variable:
            return variable
        return self._owner.masks.held(variable, self._checked(new, variable, "update"))

    def offsets(self, step: Scalar, measured: Scalar | bool) -> list[tuple[Variable, Tensor]]:
        """Returns the weights that are not frozen, each with the difference that the rule makes to it.

        Args:
            step: Optimizer steps so far, a scalar integer tensor.
            measured: Whether to say what it does.
        """
        acting = self.acting_on()
        if not acting:
            return []
        self.survey(self.variables, step)
        with self._one_draw():
            differences = [(variable, self._difference(variable, step)) for variable in acting]

        added = {id(v): difference for v, difference in differences}
        # As few values as may be: a branch takes each of them as an operand, whether it is taken or not.
        changes = _parts([added.get(id(v), ops.zeros(v.shape, v.dtype)) for v in self.variables])

        def record() -> None:
            before = _values(self.variables)
            pairs = zip(before, _of_parts(changes, before), strict=True)
            self._record(before, [x + ops.cast(change, x.dtype) for x, change in pairs], step, changes)

        if measured is True:
            record()
        else:
            only_if(measured, record)
        self.finish(step)
        self._applications.assign_add(1)
        return differences

    @property
    def undone(self) -> bool:
        """Whether what the rule makes of weights is taken back."""
        return self.placement.startswith("during_")

    @property
    def touches_slots(self) -> bool:
        """Whether the rule rewrites optimizer slots, too."""
        return type(self).update_slot is not Intervention.update_slot

    @property
    def holds(self) -> bool:
        """Whether the rule holds entries of weights."""
        return type(self).mask is not Intervention.mask

    @property
    def evaluates(self) -> bool:
        """Whether evaluations see other weights than the clean ones for the rule."""
        return type(self).evaluated is not Intervention.evaluated

    @property
    def exports(self) -> bool:
        """Whether evaluations see weights in another form for the rule."""
        return type(self).exported is not Intervention.exported

    def _checked(self, value: Any, variable: Variable, method: str) -> Tensor:
        """Refuses a wrong shape or dtype while the graph is built: broadcasting would hide the error."""
        value = ops.convert_to_tensor(value)
        shape, dtype = tuple(value.shape), keras.backend.standardize_dtype(value.dtype)
        if shape != tuple(variable.shape) or dtype != variable.dtype:
            raise ValueError(
                f"{self.name}: `{method}` must keep shape {tuple(variable.shape)} and dtype "
                f"{variable.dtype} of {variable.path}. Received: shape {shape}, dtype {dtype}"
            )
        return value

    def _record(
        self,
        before: Sequence[Tensor],
        after: Sequence[Tensor],
        step: Scalar,
        changes: Sequence[Tensor] | None = None,
    ) -> None:
        def length(values: Sequence[Tensor]) -> Tensor:
            return ops.sqrt(sum(ops.sum(ops.square(value)) for value in values))

        old = _parts(before)
        if changes is None:
            changes = [a - b for a, b in zip(_parts(after), old, strict=True)]
        change, norm = length(changes), length(old)
        self.metrics["relative_change"].assign(change / ops.maximum(norm, 1e-12))
        for name, value in self.observe(before, after, step).items():
            self.metrics[name].assign(ops.copy(ops.cast(value, "float32")))


def _values(variables: Sequence[Any]) -> list[Any]:
    """The present values, as copies: `convert_to_tensor` of a variable is the variable, read later."""
    return [ops.copy(variable) for variable in variables]


def _parts(values: Sequence[Any]) -> list[Any]:
    """Values as float32: the small ones together as one vector, for fewer operations; large ones each."""
    small = [x for x in values if math.prod(x.shape) <= SMALL]
    large = [ops.cast(x, "float32") for x in values if math.prod(x.shape) > SMALL]
    vector = [ops.concatenate([ops.reshape(ops.cast(x, "float32"), [-1]) for x in small])] if small else []
    return vector + large


def _of_parts(parts: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Float32 values in the shapes of others [...], of which `_parts` made parts."""
    sizes = [math.prod(x.shape) for x in like]
    large = iter(parts[any(size <= SMALL for size in sizes) :])
    found, begin = [], 0
    for x, size in zip(like, sizes, strict=True):
        if size > SMALL:
            found.append(next(large))
        else:
            found.append(ops.reshape(parts[0][begin : begin + size], x.shape))
            begin += size
    return found


KERNELS_AND_BIASES = kernels_and_biases()
"""What rules touch unless told otherwise: no normalization, no embeddings, no log standard deviations."""
