"""What a rule may use: strengths, state, feedback, random draws, and the layers of its weights."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlweights.weights import prng
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.feedback import Feedback
from rlweights.weights.interventions.schedules import strength

SMALL = 16_384
"""Entries up to which weights are small. With many of them the number of operations is what costs, and they
are drawn and measured together; a large one by itself, so that no more memory is taken than it needs."""


class Context:
    """What the optimizer offers the rules that are built with it."""

    name: str
    seed: int

    def __init__(self) -> None:
        self.variables: list[Any] = []
        self.all_variables: list[Any] = []
        self._places: dict[int, int] = {}
        self._pools: dict[tuple[str, str], Tensor] | None = None
        self._owner: Any = None
        self._applications: Any = None

    @property
    def owner(self) -> Any:
        """The optimizer that the rule was built with; None before."""
        return self._owner

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
            dtype: Its dtype; float32 if None and no `like`. Integers are "int", which is int64 on
                TensorFlow: it keeps int32 in the memory of the host, where programs on a GPU do not find it.
        """
        if self._owner is None:
            raise RuntimeError(f"{self.name}: `add_variable` may only be called in `build`.")
        if like is not None:
            shape, dtype = like.shape, like.dtype
            name = f"{like.path.replace('/', '_')}_{name}"
        return self._owner.add_variable(
            shape=shape,
            # A copy: on some backends it would be a view of a weight, and change with it.
            initializer=lambda shape, dtype: ops.copy(ops.broadcast_to(ops.cast(initial, dtype), shape)),
            dtype=dtype or "float32",
            name=f"{self.name}_{name}",
        )

    def feedback(self, name: str, initial: Any = 0.0) -> Feedback:
        """Declares that the rule reads the feedback `name`; only in `build`. Call it to read it."""
        source = Feedback(name, initial)
        self._owner.feedback.bind(source)
        return source

    def normal(
        self, weight: Variable, step: Scalar, stream: str = "", stddev: Callable[[Scalar], Any] | None = None
    ) -> Tensor:
        """Draws normal noise shaped like `weight`: fresh numbers at each application.

        Args:
            weight: The weight, whose shape and dtype the noise has.
            step: Scalar integer tensor; counts the draws of a rule that no optimizer was built with.
            stream: Names the draw, where a rule makes several that must be independent.
            stddev: Its standard deviation, a function of the step: one for all weights; None: 1.
        """
        return ops.cast(self._drawn("normal", weight, step, stream, stddev), weight.dtype)

    def uniform(
        self, weight: Variable, step: Scalar, low: float = 0.0, high: float = 1.0, stream: str = ""
    ) -> Tensor:
        """Draws uniform noise on [low, high) shaped like `weight` (other arguments as `normal`).

        The numbers are those of float32; in a dtype of fewer digits one may be rounded to `high`.
        """
        draws = self._drawn("uniform", weight, step, stream)
        return ops.cast(draws if (low, high) == (0.0, 1.0) else low + (high - low) * draws, weight.dtype)

    def _drawn(
        self, kind: str, weight: Variable, step: Scalar, stream: str, scale: Callable | None = None
    ) -> Tensor:
        """Draws for one weight [...], float32: a part of what is drawn, and scaled, for all small ones."""
        counter = step if self._applications is None else self._applications

        def draw(shape: Sequence[int], stream: str) -> Tensor:
            draws = {"normal": prng.normal, "uniform": prng.uniform}[kind](shape, self.seed, stream, counter)
            return draws if scale is None else ops.cast(scale(step), "float32") * draws

        size = math.prod(weight.shape)
        if id(weight) not in self._places or size > SMALL:
            return draw(weight.shape, self.stream_of(weight, stream))
        begin, total = 0, 0
        for each in self.variables:
            if each is weight:
                begin = total
            total += 0 if (entries := math.prod(each.shape)) > SMALL else entries
        pools = {} if self._pools is None else self._pools
        if (kind, stream) not in pools:
            pools[kind, stream] = draw([total], f"{self.name}/{stream}/pool")
        return ops.reshape(pools[kind, stream][begin : begin + size], weight.shape)

    @contextmanager
    def _one_draw(self) -> Iterator[None]:
        """Lets all weights of one application share what is drawn, in the graph in which it is."""
        self._pools = {}
        try:
            yield
        finally:
            self._pools = None

    def stream_of(self, weight: Variable, stream: str = "") -> str:
        """Names the random stream of a weight, by its place in the selection: paths may change on loading."""
        return f"{self.name}/{stream}/{self._places.get(id(weight), '')}"

    def slot(self, weight: Variable, *names: str) -> Variable:
        """Returns what the inner optimizer keeps of `weight` under a name, such as "momentum" [...].

        Args:
            weight: The weight.
            *names: Names, as Keras has them; the first one that there is.

        Raises:
            ValueError: If the inner optimizer keeps nothing of that name.
        """
        kept = self._owner.kept.named(weight)
        for name in names:
            if name in kept:
                return kept[name]
        inner = type(self._owner.inner).__name__
        raise ValueError(
            f"{self.name}: {inner} keeps no {' or '.join(map(repr, names))} of {weight.path}; it keeps "
            f"{', '.join(kept) or 'nothing'}. Use another optimizer, or other arguments of it"
        )

    def gradient(self, weight: Variable) -> Tensor:
        """Returns the gradient [...] of `weight` that the present step was given, zero outside of a step.

        It is the whole one, with the entries that rules hold, and as the loss gives it: not clipped.

        Raises:
            ValueError: If the inner optimizer accumulates gradients, or there are several replicas.
        """
        try:
            return self._owner.gradient_of(weight)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

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
