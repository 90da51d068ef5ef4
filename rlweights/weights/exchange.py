"""Other values in a model's weights for a while, and the way back."""

from collections.abc import Mapping, Sequence

import numpy as np

from rlweights.weights.arrays import Array, Tensor, Variable


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
        own = [v.numpy().copy() for v in chosen]
        put = [np.array(values[id(v)]) for v in chosen]
        for variable, value in zip(chosen, put, strict=True):
            variable.assign(value)
        self._waiting = [(v, a, v.numpy().copy()) for v, a in zip(chosen, own, strict=True)]

    def take_out(self) -> bool:
        """Puts the weights' own values in again.

        Returns:
            Whether nobody has written anything meanwhile.
        """
        untouched = True
        waiting, self._waiting = self._waiting, []
        for variable, own, put in waiting:
            now = variable.numpy()
            same = (now == put) | ((now != now) & (put != put))
            untouched &= bool(np.all(same))
            variable.assign(np.where(same, own, now))
        return untouched

    def own_values(self) -> dict[int, Array]:
        """Returns the values that wait outside, by the identity of their weights."""
        return {id(variable): own for variable, own, _ in self._waiting}

    def resume(self, variables: Sequence[Variable], own: Sequence[Array]) -> None:
        """Takes the present values of weights, from a file, for what was put in, and `own` for what waits."""
        self._waiting = [(v, np.asarray(a), v.numpy().copy()) for v, a in zip(variables, own, strict=True)]
