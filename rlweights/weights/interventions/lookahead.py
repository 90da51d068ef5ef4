"""Fast weights that come back to slow ones: Lookahead, and the hare and the tortoise."""

from collections.abc import Sequence
from typing import Any

from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.backend import ops
from rlweights.weights.interventions.base import Intervention


class Lookahead(Intervention):
    """k steps forward, one step back: every k steps slow weights go part of the way to the fast ones.

        every k steps:  slow <- slow + rate (w - slow);  w <- slow

    Evaluations and exports have the slow weights.

    Args:
        every: Steps k from one synchronization to the next; 5 in the paper, as the default of `rate`.
        rate: Share α of the way, in (0, 1].
        reset: Whether the optimizer's slots begin anew at each synchronization ("interpolated" momentum, a
            third way of the paper, is not offered).
        **kwargs: See `Intervention`.

    Metrics: `relative_change` alone, of the last synchronization.

    Reference: Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back", 2019,
    https://arxiv.org/abs/1907.08610, algorithm 1.
    """

    when = "A fast optimizer that is to be steadied."
    example = "Lookahead()"

    placements = ("after_step",)

    def __init__(self, every: int = 5, rate: float = 0.5, reset: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"`rate` must be in (0, 1]. Received: {rate!r}")
        self.every, self.rate, self.reset = int(every), float(rate), reset
        self._slow: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Begins the slow weights at the present ones."""
        self._slow = {id(v): self.add_variable("slow", like=v, initial=v) for v in variables}

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the new slow weight."""
        if id(weight) not in self._slow:
            raise ValueError(f"{self.name}: slow weights need a weight of a built optimizer.")
        slow = self._slow[id(weight)]
        return slow + ops.cast(self.rate, weight.dtype) * (weight - slow)

    def finish(self, step: Scalar) -> None:
        """Keeps what was written as the slow weights."""
        for variable in self.variables:
            self._slow[id(variable)].assign(variable)

    def update_slot(self, weight: Variable, slot: Variable, step: Scalar) -> Tensor | None:
        """Returns the slot as it began, if asked for."""
        return ops.full_like(slot, self._owner.kept.beginning(slot)) if self.reset else None

    def preserves(self, promise: str) -> bool:
        """What is between weights that were bounded is bounded."""
        return promise == "bound"

    def evaluated(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the slow weight."""
        return ops.copy(self._slow[id(weight)])


class HareAndTortoise(Intervention):
    """Weights that learn fast, an average of them that follows, and a return to it now and then.

        every step:      tortoise <- decay tortoise + (1 - decay) hare
        every k steps:   hare <- tortoise

    The hare, the weights that are trained, keeps its plasticity by coming back; evaluations and exports have
    the tortoise.

    Args:
        every: Steps k from one return to the next; the published code returns after epochs.
        decay: Weight of the past in the average, in [0, 1).
        **kwargs: See `Intervention`.

    Metrics: `relative_change`, which is 0 between two returns.

    Reference: Lee, Cho, Kim, Kim, Min, Choo and Lyle, "Slow and Steady Wins the Race: Maintaining Plasticity
    with Hare and Tortoise Networks", 2024, https://arxiv.org/abs/2406.02596, section 4.
    """

    when = "Long training on data that changes."
    example = "HareAndTortoise(every=1_000)"

    placements = ("after_step",)

    def __init__(self, every: int = 1_000, decay: float = 0.999, **kwargs: Any):
        super().__init__(**kwargs)
        if every < 1:
            raise ValueError(f"`every` must be at least 1. Received: {every!r}")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"`decay` must be in [0, 1). Received: {decay!r}")
        self.period, self.decay = int(every), float(decay)
        self._tortoise: dict[int, Any] = {}

    def build(self, variables: Sequence[Variable]) -> None:
        """Begins the tortoise at the present weights."""
        for v in variables:
            # In float32 whatever the weights are in: small steps towards them would be rounded away.
            name = f"{v.path.replace('/', '_')}_tortoise"
            self._tortoise[id(v)] = self.add_variable(name, shape=v.shape, initial=v)

    def survey(self, weights: Sequence[Variable], step: Scalar) -> None:
        """Moves the tortoise."""
        for weight in weights:
            tortoise = self._tortoise[id(weight)]
            hare: Any = ops.cast(weight, "float32")
            tortoise.assign(self.decay * tortoise + (1.0 - self.decay) * hare)

    def update(self, weight: Variable, step: Scalar) -> Tensor:
        """Returns the tortoise when the hare is to come back, else the weight."""
        if id(weight) not in self._tortoise:
            raise ValueError(f"{self.name}: the tortoise needs a weight of a built optimizer.")
        back = ops.equal(ops.mod(self._applications + 1, self.period), 0)
        return ops.where(back, ops.cast(self._tortoise[id(weight)], weight.dtype), weight)

    def preserves(self, promise: str) -> bool:
        """What is between weights that were bounded is bounded."""
        return promise == "bound"

    def evaluated(self, weight: Variable, value: Tensor) -> Tensor:
        """Returns the tortoise."""
        return ops.cast(self._tortoise[id(weight)], weight.dtype)
