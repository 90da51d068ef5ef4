"""The contract of an optimizer that wraps another one: what is said to it reaches the one inside."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from rlweights.weights.arrays import Tensor, Variable


def _of_inner(name: str) -> Any:
    """A property that is the inner optimizer's: set on the wrapper it would be ignored in silence."""

    def get(self: Any) -> Any:
        return getattr(self.inner, name)

    def set_(self: Any, value: Any) -> None:
        if "inner" in vars(self):  # before that Keras' constructor sets its defaults
            setattr(self.inner, name, value)

    return property(get, set_, doc=f"The inner optimizer's `{name}`.")


class DelegatingOptimizer(keras.optimizers.Optimizer):
    """An optimizer that delegates everything public but the step itself to `self.inner`."""

    inner: keras.optimizers.Optimizer
    waiting_weights: Sequence[Any] | None = None
    """What `set_weights` was given before there was anything to set."""

    @property
    def learning_rate(self) -> Any:
        """The inner optimizer's learning rate."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> Any:
        self.inner.learning_rate = value

    @property
    def iterations(self) -> Variable:
        """The inner optimizer's step count."""
        return self.inner.iterations

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Tensor, Variable]]) -> Variable:
        """Applies pairs of gradient and weight; returns the step count."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(gradients, variables)
        return self.iterations

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Delegates to the inner optimizer."""
        self.inner.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all of `variables`; before `build` (legacy HDF5 files) this takes effect in `build`.

        Raises:
            ValueError: If there are not as many values as variables, or of other shapes.
        """
        if not self.built:
            self.waiting_weights = [np.array(value) for value in weights]  # their file may be closed by then
            return
        shapes = [tuple(v.shape) for v in self.variables]
        given = [tuple(np.shape(value)) for value in weights]
        if given != shapes:
            raise ValueError(f"`weights` must have the shapes {shapes}. Received: {given}")
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    weight_decay = _of_inner("weight_decay")
    clipnorm = _of_inner("clipnorm")
    clipvalue = _of_inner("clipvalue")
    global_clipnorm = _of_inner("global_clipnorm")
    use_ema = _of_inner("use_ema")
    ema_momentum = _of_inner("ema_momentum")
    ema_overwrite_frequency = _of_inner("ema_overwrite_frequency")
    loss_scale_factor = _of_inner("loss_scale_factor")
    gradient_accumulation_steps = _of_inner("gradient_accumulation_steps")


def refuse_inner(inner: Any) -> None:
    """Refuses what would make an inner optimizer act on weights that the rules have not seen.

    Raises:
        TypeError: If it is no Keras optimizer.
        ValueError: If it keeps its own EMA, scales the loss, or wraps another one itself.
    """
    if isinstance(inner, DelegatingOptimizer):
        raise ValueError("InterventionOptimizer cannot wrap another one; put all rules into one list.")
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Wrap the other way round, LossScaleOptimizer(InterventionOptimizer(inner, rules)): a step that "
            "is skipped for its non-finite gradients must skip the rules as well."
        )
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise TypeError(f"`inner` must be a keras.optimizers.Optimizer. Received: {inner!r}")
    if inner.use_ema:
        raise ValueError(
            "`use_ema=True` on the inner optimizer averages weights before the rules have acted (a clipped "
            "weight's average would leave its bound). Use the rule `Averaging` as the last one instead."
        )
