"""What differs between the backends of Keras, for the rules; nothing else asks which one it is."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import keras

from rlweights.weights import keras_internals, philox, threaded_state
from rlweights.weights.arrays import Tensor, Variable

NAME: str = keras.backend.backend()
"""The backend that Keras has begun with: "tensorflow", "jax" or "torch"."""


def _unchanged(function: Callable) -> Callable:
    return function


as_written = rewrites_weights = _unchanged
if NAME == "tensorflow":
    import tensorflow as tf

    as_written = rewrites_weights = tf.autograph.experimental.do_not_convert
    """Decorates what is plain Python in every mode: AutoGraph would read it differently in a graph."""
elif NAME == "torch":
    import torch  # pyright: ignore[reportMissingImports]

    rewrites_weights = torch.no_grad()
    """Decorates what rewrites weights, as it is written, and is no part of what gradients are taken of."""
else:
    import jax


ops: Any = keras.ops
"""Keras' operations, all of which take variables, too: on JAX some of Keras 3.15 take tensors only."""

if NAME == "jax":

    def _of_values(operation: Callable) -> Callable:
        def on_values(*args: Any, **kwargs: Any) -> Any:
            return operation(*(x.value if isinstance(x, keras.Variable) else x for x in args), **kwargs)

        return on_values

    _strict = ("where", "zeros_like", "ones_like", "full_like")
    _widened = {name: _of_values(getattr(keras.ops, name)) for name in _strict}
    ops = SimpleNamespace(**(vars(keras.ops) | _widened))

MODES = {"tensorflow": ("in a graph", "under XLA"), "jax": ("in a compiled step",)}.get(NAME, ())
"""How training can be compiled, besides not at all, in the words of `rlweights.testing`."""

COMPILES_EACH_OPERATION = NAME == "jax"
"""Whether each operation outside of compiled steps is compiled by itself: many of them take long."""

# Where state is made and read -----------------------------------------------------------------------


@contextlib.contextmanager
def building(optimizer: Any) -> Iterator[None]:
    """Holds where an optimizer's state is created: outside of graphs, on all devices of its strategy.

    Raises:
        ValueError: If the optimizer was made outside of the scope of the strategy.
    """
    if NAME != "tensorflow":  # the others build before the first step
        yield
        return
    strategy = keras_internals.strategy_of(optimizer)
    with tf.init_scope():  # Keras may call this while it traces the first step
        if tf.distribute.has_strategy() and tf.distribute.get_strategy() is not strategy:
            raise ValueError(
                f"{optimizer.name} was made outside of the scope of the strategy: make it and its inner "
                f"optimizer in `with strategy.scope():`, where the model is made"
            )
        with strategy.scope():
            yield


def replicas(optimizer: Any) -> int:
    """Returns on how many devices of a `tf.distribute` strategy an optimizer acts at once."""
    return keras_internals.strategy_of(optimizer).num_replicas_in_sync if NAME == "tensorflow" else 1


def has_value(variable: Variable) -> bool:
    """Returns whether a variable has a value; outside of graphs.

    It has none before it is initialized, nor on JAX while the state of `fit` holds it.
    """
    if not keras_internals.is_initialized(variable):
        return False
    return NAME != "tensorflow" or bool(variable.value.is_initialized())


def entries(gradient: Tensor) -> Tensor:
    """Returns the entries of a gradient: all, or those of the rows that an embedding has looked up."""
    sparse = NAME == "tensorflow" and isinstance(gradient, tf.IndexedSlices)
    return gradient.values if sparse else gradient


def address(variable: Variable) -> int | None:
    """Returns where the value of a variable lies in memory; None on TensorFlow, where none share one."""
    if NAME == "torch":
        return variable.value.data_ptr()
    return variable.value.unsafe_buffer_pointer() if NAME == "jax" else None


def devices() -> list[str]:
    """Returns the names of TensorFlow's GPUs, or else its logical processors; empty elsewhere."""
    if NAME != "tensorflow":
        return []
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in found]


def runs_at_once() -> bool:
    """Returns whether what is written now is in the variables now: not in a graph, nor in JAX's steps."""
    return tf.executing_eagerly() if NAME == "tensorflow" else not keras_internals.in_stateless_scope()


# Random bits and branches ---------------------------------------------------------------------------


def random_words(shape: Sequence[int], key: Tensor) -> Tensor:
    """Returns int32 words [shape] of independent bits: the same ones, of Philox, on every backend.

    Args:
        shape: Static shape.
        key: int32[2].
    """
    if NAME == "tensorflow":
        bits = tf.random.stateless_uniform(shape, key, None, None, dtype=tf.uint32, alg="philox")
        return tf.bitcast(bits, tf.int32)
    return _philox(tuple(int(n) for n in shape), key)


# Outside of a compiled step JAX would compile its loop at each call.
_philox = jax.jit(philox.words, static_argnums=0) if NAME == "jax" else philox.words

BRANCHES_WRITE = NAME != "jax"
"""Whether a branch in a graph may write variables; on JAX it can only return values."""

# A model's own training -----------------------------------------------------------------------------

THREADS_STATE = NAME == "jax"
"""Whether a training step takes and returns its state; it is in no variable then, until an epoch ends."""


def around_step(model: Any, step: Callable, enter: Callable[[], None], leave: Callable[[], None]) -> Callable:
    """Returns a `train_step` that enters, takes the step and leaves, all of it within the compiled step."""
    if THREADS_STATE:

        def threaded(state: Any, data: Any) -> Any:
            logs, state = step(threaded_state.rewritten(model, state, enter), data)
            return logs, threaded_state.rewritten(model, state, leave)

        return threaded

    @as_written
    def train_step(*args: Any, **kwargs: Any) -> Any:
        enter()
        try:
            return step(*args, **kwargs)
        finally:
            leave()

    return train_step


def guarded_steps(
    model: Any,
    steps: Callable,
    before: Callable[[], Sequence[Callable[[], Any]]],
    after: Callable[[], Sequence[Callable[[], Any]]],
    leave: Callable[[], None],
) -> Callable:
    """Returns a training function that does what is due before and after its steps, and survives errors.

    Args:
        model: The model that is trained.
        steps: Keras' own training function, which takes one step or `steps_per_execution`.
        before: Returns what is to be done before the steps, outside of any graph; mostly nothing.
        after: Likewise after them; may raise.
        leave: Called when anything was raised. On JAX there is nothing to leave: a step is taken or not.
    """

    def threaded(state: Any, iterator: Any) -> Any:
        state = threaded_state.acted(model, state, before())
        try:
            logs, state = steps(state, iterator)
        except BaseException:
            threaded_state.keep(model, state)
            raise
        return logs, threaded_state.acted(model, state, after())

    def train_function(*args: Any, **kwargs: Any) -> Any:
        try:
            for act in before():
                act()
            logs = steps(*args, **kwargs)
            for act in after():
                act()
            return logs
        except BaseException:  # an interrupt, too: a graph may have ended between two of its writes
            leave()
            raise

    return threaded if THREADS_STATE else train_function
