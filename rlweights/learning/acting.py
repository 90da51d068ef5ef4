"""From observations to actions: forward passes in NumPy, and functions that act in one environment."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from rlweights.learning.distributions import Distribution
from rlweights.learning.networks import Trunk
from rlweights.learning.spaces import ObservationEncoder, one_batch
from rlweights.weights.arrays import Array, Tensor


def _sigmoid(x: Array) -> Array:
    """The logistic function; written so that no exponential overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


NUMPY_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "linear": lambda x: x,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0))),
    "leaky_relu": lambda x: np.where(x > 0.0, x, 0.2 * x),
}


class NumpyPolicy:
    """A dense policy's forward pass in NumPy, on a snapshot of its weights.

    Calling a compiled function costs more than the whole forward pass of a small network, so rollouts and
    evaluations run this one and refresh it when the weights change.

    Raises:
        ValueError: If the network has convolutions or an activation that is not in NUMPY_ACTIVATIONS.
    """

    def __init__(self, policy: Any):
        trunk = policy.trunk
        activation = getattr(trunk.activation, "__name__", "")
        if trunk.convolutions or activation not in NUMPY_ACTIVATIONS:
            raise ValueError("only dense networks with a plain activation have a NumPy forward pass")
        self._policy = policy
        self._activation = NUMPY_ACTIVATIONS[activation]
        tables = [table.embeddings for table in trunk.tables.values()]
        layers = [*trunk.hidden, *filter(None, trunk.norms), policy.head]
        scale = [trunk.normalization.mean, trunk.normalization.variance] if trunk.normalization else []
        log_std = [] if policy.log_std is None else [policy.log_std]
        self._variables = [*(w for layer in layers for w in layer.weights), *log_std, *scale, *tables]
        shapes = [tuple(v.shape) for v in self._variables]
        ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
        self._places = list(zip([0, *ends], ends, shapes, strict=False))
        self.refresh()

    @staticmethod
    def supports(policy: Any) -> bool:
        """Whether `policy` has a NumPy forward pass."""
        trunk = getattr(policy, "trunk", None)
        name = getattr(getattr(trunk, "activation", None), "__name__", "")
        return isinstance(trunk, Trunk) and not trunk.convolutions and name in NUMPY_ACTIVATIONS

    def flat(self) -> Tensor:
        """Returns all weights of the forward pass as one vector [W], for a compiled program to return."""
        return ops.concatenate([ops.reshape(v.value, [-1]) for v in self._variables])

    def refresh(self, flat: Array | None = None) -> None:
        """Takes a new snapshot of the weights, live ones if an iteration is under way.

        Args:
            flat: The vector [W] that a compiled program returned from `flat`; None fetches it. One fetch of
                all weights is cheaper than one for each.
        """
        values: Any = ops.convert_to_numpy(self.flat()) if flat is None else flat
        arrays = (values[start:end].reshape(shape) for start, end, shape in self._places)

        def pair() -> tuple[Array, Array]:
            return next(arrays), next(arrays)

        policy, trunk = self._policy, self._policy.trunk
        self._hidden = [pair() for _ in trunk.hidden]
        self._norms = [norm and (*pair(), norm.epsilon) for norm in trunk.norms]
        self._head = pair()
        self._log_std = None if policy.log_std is None else next(arrays)
        self._scale = trunk.normalization and trunk.normalization.numpy_scale(*pair())
        self._tables = {name: (table, next(arrays)) for name, table in trunk.tables.items()}

    def __call__(self, observations: Array) -> Array:
        """Returns the distribution parameters [N, P] of float32 observations [N, D], masked if masks are."""
        masking = self._policy.masking
        if masking is None:
            return self._outputs(observations)
        return masking.applied_numpy(self._outputs(masking.seen(observations)), observations)

    def _outputs(self, observations: Array) -> Array:
        x = observations
        if self._scale:
            mean, inverse_std, limit = self._scale
            x = np.clip((x - mean) * inverse_std, -limit, limit)
        if self._tables:
            x = self._joined(x, observations)
        for (kernel, bias), norm in zip(self._hidden, self._norms, strict=True):
            x = x @ kernel
            x += bias
            if norm:
                gamma, beta, epsilon = norm
                x -= x.mean(-1, keepdims=True)
                x *= gamma / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)
                x += beta
            x = self._activation(x)
        x = x @ self._head[0] + self._head[1]
        if self._log_std is None:
            return x
        return np.concatenate([x, np.broadcast_to(self._log_std, x.shape)], axis=-1)

    def _joined(self, x: Array, indices: Array) -> Array:
        """The parts of observations [N, D] beside each other; indices, never normalized, are looked up."""
        found = []
        for part in self._policy.trunk.parts:
            if part.kind == "index":
                table, values = self._tables[part.name]
                found.append(table.looked_up(values, indices[:, part.start : part.end]))
            else:
                found.append(x[:, part.start : part.end])
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def acting(policy: Any) -> Callable[[Array], Array]:
    """Returns a policy network's forward pass, from observations [N, ...] to parameters [N, P].

    It runs in NumPy where that is possible, and then on the weights that the network holds now.
    """
    if NumpyPolicy.supports(policy):
        return NumpyPolicy(policy)
    return lambda observations: policy(tf.constant(observations)).numpy()


def actor(
    policy: Callable[[Array], Array],
    encoder: ObservationEncoder,
    distribution: Distribution,
    decode: Callable[[Array], Array],
    rng: np.random.Generator | None = None,
) -> Callable[[Any], Any]:
    """Returns a function that acts in one environment: from an observation to an action.

    Args:
        policy: From encoded observations [N, ...] to parameters [N, P].
        encoder: Of the observations.
        distribution: Of the actions.
        decode: From sampled actions [N, ...] to what the environment takes, see `action_decoder`.
        rng: Draws the actions; None takes the most likely one.
    """

    def act(observation: Any) -> Any:
        parameters = policy(encoder.encode(one_batch(observation)))
        return decode(distribution.choose_numpy(parameters, rng))[0]

    return act
