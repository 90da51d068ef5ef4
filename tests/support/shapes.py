"""Signatures with shapes for what flows through the learner, checked when they are called.

A name is an axis, equal wherever it stands in one signature: T time steps, N environments, B samples,
`*O` the shape of an observation, `*A` that of an action, `*S` any leading axes. Checked are eager tensors,
NumPy arrays, and the symbolic tensors of a graph while it is traced. The package itself does not depend on
the checkers, so these are functions around its own.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from beartype import beartype
from jaxtyping import Float32, Shaped, TypeCheckError, jaxtyped

from rlweights.learning import returns
from rlweights.learning.algorithms import Algorithm
from rlweights.learning.batch import Batch, Minibatch
from rlweights.learning.distributions import Distribution
from rlweights.learning.learner import Learner

__all__ = ["TypeCheckError", "batch", "checked_learner", "discounted_returns", "generalized_advantages"]

Given = tf.Tensor | np.ndarray

checked = jaxtyped(typechecker=beartype)


@checked
def batch(
    observations: Shaped[Given, "T N *O"],
    actions: Shaped[Given, "T N *A"],
    rewards: Float32[Given, "T N"],
    terminated: Float32[Given, "T N"],
    truncated: Float32[Given, "T N"],
    valid: Float32[Given, "T N"],
    last_observations: Shaped[Given, "N *O"],
    final_values: Float32[Given, "T N"],
    has_final: Float32[Given, "T N"],
) -> Batch:
    """A batch whose entries have the shapes that `Batch` promises."""
    return Batch(
        observations,
        actions,
        rewards,
        terminated,
        truncated,
        valid,
        last_observations,
        final_values,
        has_final,
    )


@checked
def per_sample(
    of_the_policy: Float32[Given, " B"],
    actions: Shaped[Given, "B *A"],
    old_log_prob: Float32[Given, " B"],
    old_values: Float32[Given, " B"],
    advantages: Float32[Given, " B"],
    returns: Float32[Given, " B"],
    valid: Float32[Given, " B"],
    loss: Float32[Given, " B"],
) -> None:
    """Log-probabilities or values, the entries of a `Minibatch`, and the loss that is made of them."""


@checked
def generalized_advantages(
    rewards: Float32[Given, "T N"],
    values: Float32[Given, "T N"],
    next_values: Float32[Given, "T N"],
    discounts: Float32[Given, "T N"],
    continues: Float32[Given, "T N"],
    gae_lambda: float,
) -> Float32[Given, "T N"]:
    """`returns.generalized_advantages`, with shapes."""
    return returns.generalized_advantages(rewards, values, next_values, discounts, continues, gae_lambda)


@checked
def discounted_returns(
    rewards: Float32[Given, "T N"],
    discounts: Float32[Given, "T N"],
    continues: Float32[Given, "T N"],
    bootstrap: Float32[Given, " N"],
) -> Float32[Given, "T N"]:
    """`returns.discounted_returns`, with shapes."""
    return returns.discounted_returns(rewards, discounts, continues, bootstrap)


class Around:
    """An object with some methods replaced; everything else is the object's own."""

    def __init__(self, inner: Any, **methods: Callable[..., Any]):
        self._inner = inner
        vars(self).update(methods)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def checked_distribution(distribution: Distribution) -> Any:
    """A distribution whose methods check their shapes."""
    P, Z = distribution.parameter_size, distribution.noise_size
    A = " ".join(map(str, distribution.action_shape))

    @checked
    def sample(
        parameters: Float32[Given, f"*S {P}"], noise: Float32[Given, f"*S {Z}"]
    ) -> Shaped[Given, f"*S {A}"]:
        return distribution.sample(parameters, noise)

    @checked
    def sample_numpy(
        parameters: Float32[np.ndarray, f"*S {P}"], noise: Float32[np.ndarray, f"*S {Z}"]
    ) -> Shaped[np.ndarray, f"*S {A}"]:
        return distribution.sample_numpy(parameters, noise)

    @checked
    def mode(parameters: Float32[Given, f"*S {P}"]) -> Shaped[Given, f"*S {A}"]:
        return distribution.mode(parameters)

    @checked
    def log_prob(
        parameters: Float32[Given, f"*S {P}"], actions: Shaped[Given, f"*S {A}"]
    ) -> Float32[Given, "*S"]:
        return distribution.log_prob(parameters, actions)

    @checked
    def entropy(parameters: Float32[Given, f"*S {P}"]) -> Float32[Given, "*S"]:
        return distribution.entropy(parameters)

    @checked
    def kl(p: Float32[Given, f"*S {P}"], q: Float32[Given, f"*S {P}"]) -> Float32[Given, "*S"]:
        return distribution.kl(p, q)

    @checked
    def distance(
        p: Float32[Given, f"*S {P}"],
        q: Float32[Given, f"*S {P}"],
        mask: Float32[Given, "*S"] | None = None,
    ) -> Float32[Given, ""]:
        return distribution.distance(p, q, mask)

    return Around(
        distribution,
        sample=sample,
        sample_numpy=sample_numpy,
        mode=mode,
        log_prob=log_prob,
        entropy=entropy,
        kl=kl,
        distance=distance,
    )


def checked_algorithm(algorithm: Algorithm) -> Any:
    """An algorithm whose losses check their shapes."""

    def policy_loss(log_prob: Any, samples: Minibatch, progress: Any) -> Any:
        loss, statistics = algorithm.policy_loss(log_prob, samples, progress)
        for each in (loss, *statistics.values()):
            per_sample(log_prob, *samples, each)
        return loss, statistics

    def value_loss(values: Any, samples: Minibatch, progress: Any) -> Any:
        loss = algorithm.value_loss(values, samples, progress)
        per_sample(values, *samples, loss)
        return loss

    return Around(algorithm, policy_loss=policy_loss, value_loss=value_loss)


def checked_learner(learner: Learner, monkeypatch: Any) -> None:
    """Lets a learner check the batch, the values, the advantages, the losses and all that it reports."""
    learn, values = learner.learn, learner.networks.values

    @checked
    def checked_values(observations: Shaped[Given, "B *O"]) -> Float32[Given, " B"]:
        return values(observations)

    @checked
    def checked_learn(given: Batch) -> dict[str, Float32[Given, ""]]:
        return learn(batch(*given))

    monkeypatch.setattr("rlweights.learning.learner.generalized_advantages", generalized_advantages)
    monkeypatch.setattr(learner, "learn", checked_learn)
    monkeypatch.setattr(learner, "algorithm", checked_algorithm(learner.algorithm))
    monkeypatch.setattr(learner, "distribution", checked_distribution(learner.distribution))
    monkeypatch.setattr(learner.networks, "values", checked_values)
