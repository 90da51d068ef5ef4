"""A second implementation of one iteration of learning: NumPy, float64, gradients by finite differences.

It shares nothing with the package but the numbers that go in, so what both agree on is right.
"""

from typing import Any

import numpy as np

from rlweights.learning.algorithms import PPO, Algorithm
from rlweights.learning.batch import Batch
from rlweights.learning.learner import Learner

Weights = dict[str, np.ndarray]


def forward(weights: Weights, network: str, observations: np.ndarray) -> np.ndarray:
    """A network of tanh layers: "policy" or "value"."""
    x = observations.astype(np.float64)
    layer = 0
    while f"{network}/hidden_{layer}/kernel" in weights:
        kernel, bias = weights[f"{network}/hidden_{layer}/kernel"], weights[f"{network}/hidden_{layer}/bias"]
        x = np.tanh(x @ kernel + bias)
        layer += 1
    x = x @ weights[f"{network}/head/kernel"] + weights[f"{network}/head/bias"]
    if network == "policy" and "policy/log_std" in weights:
        x = np.concatenate([x, np.broadcast_to(weights["policy/log_std"], x.shape)], axis=-1)
    return x


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def log_prob(weights: Weights, parameters: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Categorical without, Gaussian with a log standard deviation among the weights."""
    if "policy/log_std" not in weights:
        return np.take_along_axis(log_softmax(parameters), actions[..., None].astype(int), -1)[..., 0]
    mean, log_std = np.split(parameters, 2, axis=-1)
    density = -0.5 * ((actions - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    return density.sum(-1)


def entropy(weights: Weights, parameters: np.ndarray) -> np.ndarray:
    if "policy/log_std" not in weights:
        logs = log_softmax(parameters)
        return -(np.exp(logs) * logs).sum(-1)
    return (np.split(parameters, 2, axis=-1)[1] + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)


def advantages(batch: Batch, values: np.ndarray, last_values: np.ndarray, gamma: float, lam: float) -> Any:
    """Generalised advantages as the sums that define them, one environment and one step after the other."""
    T, N = batch.rewards.shape
    result = np.zeros((T, N))
    for n in range(N):
        for start in range(T):
            weight = 1.0
            for t in range(start, T):
                following = values[t + 1, n] if t + 1 < T else last_values[n]
                if batch.has_final[t, n]:
                    following = batch.final_values[t, n]
                if batch.terminated[t, n]:
                    following = 0.0
                result[start, n] += weight * (batch.rewards[t, n] + gamma * following - values[t, n])
                if batch.terminated[t, n] or batch.truncated[t, n]:
                    break
                weight *= gamma * lam
    return result


class Reference:
    """One iteration of SGD on one minibatch per epoch.

    Args:
        learner: Whose algorithm and weights to take.
        offsets: What is added to weights while acting and learning, by path.
    """

    def __init__(self, learner: Learner, offsets: Weights | None = None):
        self.algorithm: Algorithm = learner.algorithm
        self.rate: Any = learner.algorithm.learning_rate
        self.clean = {v.path: v.numpy().astype(np.float64) for v in learner.networks.trainable_variables}
        self.offsets = offsets or {}

    @property
    def live(self) -> Weights:
        """The weights that act and whose gradient is taken."""
        return {path: value + self.offsets.get(path, 0.0) for path, value in self.clean.items()}

    def iterate(self, batch: Batch) -> dict[str, float]:
        """Runs all epochs and returns the means of their scalars; the result is in `clean`."""
        algorithm, live = self.algorithm, self.live
        values = forward(live, "value", batch.observations)[..., 0]
        last_values = forward(live, "value", batch.last_observations)[..., 0]
        found = advantages(batch, values, last_values, algorithm.gamma, algorithm.gae_lambda)
        old_log_prob = log_prob(live, forward(live, "policy", batch.observations), batch.actions)
        returns = found + values
        valid = batch.valid.astype(bool)
        if algorithm.normalize_advantage:
            found = (found - found[valid].mean()) / (found[valid].std() + 1e-8)
        rows = []
        for _ in range(algorithm.n_epochs):

            def scalars(weights: Weights) -> dict[str, float]:
                return self._scalars(weights, batch, valid, found, returns, old_log_prob, values)

            row = scalars(self.live)
            gradient = self._gradient(lambda weights: scalars(weights)["loss"])
            norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
            scale = min(1.0, (algorithm.max_grad_norm or np.inf) / norm)
            for path, g in gradient.items():
                self.clean[path] = self.clean[path] - self.rate * scale * g
            rows.append(row | {"grad_norm": norm})
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _scalars(self, weights, batch, valid, found, returns, old_log_prob, old_values) -> dict[str, float]:
        algorithm: Any = self.algorithm
        parameters = forward(weights, "policy", batch.observations)
        values = forward(weights, "value", batch.observations)[..., 0]
        now = log_prob(weights, parameters, batch.actions)
        ratio = np.exp(now - old_log_prob)
        clipped_share = 0.0
        if isinstance(algorithm, PPO):
            clip: Any = algorithm.clip_range
            policy = -np.minimum(ratio * found, np.clip(ratio, 1 - clip, 1 + clip) * found)
            clipped_share = (np.abs(ratio - 1) > clip)[valid].mean()
            if algorithm.clip_range_vf is not None:
                reach: Any = algorithm.clip_range_vf
                values = old_values + np.clip(values - old_values, -reach, reach)
        else:
            policy = -found * now
        policy_loss = policy[valid].mean()
        value_loss = ((returns - values) ** 2)[valid].mean()
        entropy_loss = -entropy(weights, parameters)[valid].mean()
        return {
            "loss": policy_loss + algorithm.ent_coef * entropy_loss + algorithm.vf_coef * value_loss,
            "policy_gradient_loss": policy_loss,
            "value_loss": value_loss,
            "entropy_loss": entropy_loss,
            "approx_kl": (ratio - 1 - np.log(ratio))[valid].mean(),
            "clip_fraction": clipped_share,
        }

    def _gradient(self, loss) -> Weights:
        live, step = self.live, 1e-5
        gradient = {}
        for path, value in live.items():
            slope = np.zeros_like(value)
            for place in np.ndindex(value.shape):
                moved = value.copy()
                moved[place] += step
                above = loss(live | {path: moved})
                moved[place] -= 2 * step
                slope[place] = (above - loss(live | {path: moved})) / (2 * step)
            gradient[path] = slope
        return gradient
