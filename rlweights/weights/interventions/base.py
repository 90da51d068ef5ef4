"""The one concept: a rule that rewrites weights inside the compiled training step."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from rlweights.weights import prng
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.branches import only_if
from rlweights.weights.interventions.feedback import Feedback
from rlweights.weights.interventions.schedules import formatted, strength
from rlweights.weights.keras_internals import global_seed
from rlweights.weights.selection import Selector, kernels_and_biases, select

PLACEMENTS = ("after_step", "during_gradient", "during_iteration", "after_iteration")


class Intervention:
    """A rule that rewrites weights inside the compiled training step.

    A subclass implements one pure method of one weight: `update` returns its new value (and is written
    with `assign`), or `delta` returns what to add (written with `assign_add`). It may also create state
    in `build`, adapt that state in `begin_iteration`, and measure itself in `observe`.

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
    metric_names: Sequence[str] = ()
    """Names of the metrics that `observe` returns besides `relative_change`; `build` may set others."""

    def __new__(cls, *args: Any, **kwargs: Any):
        """Remembers the arguments: `get_config` gives them back, so no rule has to write its own."""
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        self._arguments = dict(list(bound.arguments.items())[1:])
        for each in bound.signature.parameters.values():
            if each.kind is each.VAR_KEYWORD:
                self._arguments |= self._arguments.pop(each.name, {})
        return self

    def __reduce__(self) -> Any:
        return _made, (type(self), self._arguments)

    def __deepcopy__(self, memo: Any) -> "Intervention":  # layers in the arguments stay themselves
        return _made(type(self), self._arguments)

    def __init_subclass__(cls, **kwargs: Any):
        """Registers the rule with Keras, so that models which use it save and load."""
        super().__init_subclass__(**kwargs)
        package = "rlweights" if cls.__module__.startswith("rlweights.") else cls.__module__
        keras.saving.register_keras_serializable(package=package)(cls)

    def __init__(
        self,
        on: Any = None,
        *,
        placement: str | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
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
        self.variables: list[Any] = []
        self.all_variables: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self._places: dict[int, int] = {}
        self._owner: Any = None
        self._applications: Any = None

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

    def begin_iteration(self, step: Scalar) -> None:
        """Adapts the rule's own state, in the graph, before an iteration and its draw begin."""

    def finish(self, step: Scalar) -> None:
        """Updates the rule's own state, in the graph, after all its weights were rewritten."""

    def update_slot(self, weight: Variable, slot: Variable, step: Scalar) -> Tensor | None:
        """Returns the new value of one optimizer slot of `weight`, or None to leave it alone."""
        return None

    def limit(self, weight: Variable, step: Scalar) -> Any:
        """Returns the largest |w| that the rule leaves behind, a scalar, for charts to draw; None: any."""
        return None

    def observe(self, before: Sequence[Any], after: Sequence[Any], step: Scalar) -> Mapping[str, Any]:
        """Returns the scalars `metric_names`, given all selected weights before and after the rule."""
        return {}

    # What a rule may use --------------------------------------------------------------------------

    def strength(self, value: Any, argument: str, minimum: float | None = None) -> Callable:
        """Makes a function of the step of a number, a schedule or a `Feedback`."""
        return strength(value, argument, minimum)

    def add_variable(
        self,
        name: str,
        *,
        shape: Sequence[int] = (),
        like: Any = None,
        initial: Any = 0.0,
        dtype: str | None = None,
    ) -> Variable:
        """Creates a state variable that is saved with the optimizer.

        Args:
            name: Its name within the rule.
            shape: Its shape, unless `like` is given.
            like: A weight whose shape and dtype to take.
            initial: Number or array of the initial value.
            dtype: Its dtype; float32 if None and no `like`.
        """
        if self._owner is None:
            raise RuntimeError(f"{self.name}: `add_variable` may only be called in `build`.")
        if like is not None:
            shape, dtype = like.shape, like.dtype
            name = f"{like.path.replace('/', '_')}_{name}"
        return self._owner.add_variable(
            shape=shape,
            initializer=lambda shape, dtype: ops.broadcast_to(ops.cast(initial, dtype), shape),
            dtype=dtype or "float32",
            name=f"{self.name}_{name}",
        )

    def feedback(self, name: str, initial: Any = 0.0) -> Feedback:
        """Declares that the rule reads the feedback `name`; only in `build`. Call it to read it."""
        source = Feedback(name, initial)
        self._owner.feedback.bind(source)
        return source

    def normal(self, weight: Variable, step: Scalar, stream: str = "") -> Tensor:
        """Draws standard normal noise shaped like `weight`: fresh numbers at each application.

        Args:
            weight: The weight, whose shape and dtype the noise has.
            step: Scalar integer tensor; counts the draws of a rule that no optimizer was built with.
            stream: Names the draw, where a rule makes several that must be independent.
        """
        return self._drawn(prng.normal, weight, step, stream)

    def uniform(
        self, weight: Variable, step: Scalar, low: float = 0.0, high: float = 1.0, stream: str = ""
    ) -> Tensor:
        """Draws uniform noise on [low, high) shaped like `weight` (other arguments as `normal`).

        The numbers are those of float32; in a dtype of fewer digits one may be rounded to `high`.
        """

        def draw(*where: Any) -> Tensor:
            return prng.uniform(*where, low, high)  # pyright: ignore[reportCallIssue]

        return self._drawn(draw, weight, step, stream)

    def _drawn(self, draw: Callable[..., Tensor], weight: Variable, step: Scalar, stream: str) -> Tensor:
        counter = step if self._applications is None else self._applications
        noise = draw(weight.shape, self.seed, self.stream_of(weight, stream), counter)
        return ops.cast(noise, weight.dtype)

    def stream_of(self, weight: Variable, stream: str = "") -> str:
        """Names the random stream of a weight, by its place in the selection: paths may change on loading."""
        return f"{self.name}/{stream}/{self._places.get(id(weight), '')}"

    def inputs_of(self, weight: Variable) -> tuple[int, ...]:
        """Returns the axes of the kernel of `weight` that are summed over in one unit, as its layer says.

        Raises:
            ValueError: If the layer does not say. Without an optimizer it is all axes but the last.
        """
        if self._owner is None:
            return tuple(range(len(weight.shape) - 1))
        return self._part_of(weight).inputs

    def kernel_of(self, weight: Variable) -> Variable:
        """Returns the kernel with which `weight` makes a unit: itself, or of a bias its layer's.

        Raises:
            ValueError: If the layer owns no kernel, or is of a kind that is not known.
        """
        part = self._part_of(weight)
        return weight if part.kernel is None else part.kernel

    def fan_in(self, weight: Variable) -> int:
        """Returns the number of inputs of a unit of the layer that owns `weight` (errors as `kernel_of`)."""
        return self._part_of(weight).fan_in

    def is_bias(self, weight: Variable) -> bool:
        """Whether `weight` is added to units whose kernel is another weight."""
        if self._owner is None:
            return len(weight.shape) < 2
        part = self._owner.anatomy.part(weight)
        return len(weight.shape) < 2 if part is None else not part.is_kernel

    def layer_of(self, weight: Variable) -> str:
        """Returns the path of the layer of `weight`; of several with one path later ones are numbered."""
        return self._owner.anatomy.layer_name(weight)

    def _part_of(self, weight: Variable) -> Any:
        try:
            return self._owner.anatomy.known_part(weight)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def selected(self) -> list[str]:
        """Returns the paths of the weights that the rule selects; empty before the optimizer is built."""
        return [variable.path for variable in self.variables]

    # What the optimizer calls ---------------------------------------------------------------------

    @property
    def owner(self) -> Any:
        """The optimizer that the rule was built with; None before."""
        return self._owner

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
        self._applications = self.add_variable("applications", dtype="int32", initial=0)
        self.build(self.variables)
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
        before = _values(self.variables)
        for variable in acting:
            if self.adds:
                variable.assign_add(self._checked(self.delta(variable, step), variable, "delta"))
            elif (new := self.update(variable, step)) is not variable:
                variable.assign(self._checked(new, variable, "update"))
            for slot in self._owner.slots(variable) if self.touches_slots else ():
                if (rewritten := self.update_slot(variable, slot, step)) is not None:
                    slot.assign(rewritten)
        every = self._owner.metrics_every if self.placement == "after_step" else 1
        if every == 1:
            self._record(before, _values(self.variables), step)
        else:
            # What nobody looks at need not be measured: at small batches measuring costs more than the rule.
            due = ops.equal(ops.mod(step + 1, every), 0)
            only_if(due, lambda: self._record(before, _values(self.variables), step))
        self._finish(step)

    def offsets(self, step: Scalar) -> list[tuple[Variable, Tensor]]:
        """Returns the weights that are not frozen, each with the difference that the rule makes to it."""
        acting = {id(v) for v in self.acting_on()}
        if not acting:
            return []
        before, after, differences = _values(self.variables), [], []
        for variable, value in zip(self.variables, before, strict=True):
            if id(variable) not in acting:
                after.append(value)
                continue
            if self.adds:
                difference = self._checked(self.delta(variable, step), variable, "delta")
            else:
                difference = self._checked(self.update(variable, step), variable, "update") - value
            differences.append((variable, difference))
            after.append(value + difference)
        self._record(before, after, step)
        self._finish(step)
        return differences

    @property
    def touches_slots(self) -> bool:
        """Whether the rule rewrites optimizer slots, too."""
        return type(self).update_slot is not Intervention.update_slot

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

    def _record(self, before: Sequence[Tensor], after: Sequence[Tensor], step: Scalar) -> None:
        old = ops.concatenate([ops.reshape(ops.cast(b, "float32"), [-1]) for b in before])
        new = ops.concatenate([ops.reshape(ops.cast(a, "float32"), [-1]) for a in after])
        change = ops.sqrt(ops.sum(ops.square(new - old)))
        norm = ops.sqrt(ops.sum(ops.square(old)))
        self.metrics["relative_change"].assign(change / ops.maximum(norm, 1e-12))
        for name, value in self.observe(before, after, step).items():
            self.metrics[name].assign(ops.cast(value, "float32"))

    def _finish(self, step: Scalar) -> None:
        self.finish(step)
        self._applications.assign_add(1)

    # Saving and printing --------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialized."""
        config = dict(self._arguments)
        if config.get("seed") is None and self.seed != 0:
            config["seed"] = self.seed
        if "on" in config:
            if "predicate(" in repr(self.on):
                raise ValueError(f"{self.name}: `on={self.on!r}` is a function and cannot be saved.")
            config["on"] = self.on.expression()
        return {k: keras.saving.serialize_keras_object(v) for k, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Intervention":
        """Makes the rule that `get_config` described."""
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def describe(self) -> str:
        """The rule in one line for people: its name, what it does with which number, and to what."""
        arguments = {k: v for k, v in self._arguments.items() if k not in ("on", "name", "seed")}
        shown = [f"{k} {v if isinstance(v, str) else formatted(v)}" for k, v in arguments.items()]
        head = f"{self.name} ({', '.join(shown)})" if shown else self.name
        count = f" ({len(self.variables)} of {len(self.all_variables)} weights)" if self.variables else ""
        return f"{head} on {self.on!r}{count}"

    def __repr__(self):
        shown = {k: v for k, v in self._arguments.items() if k != "on"}
        arguments = [f"{k}={formatted(v)}" for k, v in shown.items()]
        if "on" in self._arguments:
            arguments.append(f"on={self.on!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"


def _made(rule: type[Intervention], arguments: Mapping[str, Any]) -> Intervention:
    return rule(**arguments)


def _values(variables: Sequence[Any]) -> list[Any]:
    """The present values, as copies: `convert_to_tensor` of a variable is the variable, read later."""
    return [ops.copy(variable) for variable in variables]


KERNELS_AND_BIASES = kernels_and_biases()
"""What rules touch unless told otherwise: no normalization, no embeddings, no log standard deviations."""


def snake_case(name: str) -> str:
    """Turns a class name into the name that agent files and metrics use."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
