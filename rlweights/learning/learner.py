"""One iteration of learning: from a rollout to the updated weights, as plain functions of tensors.

Shapes: T steps of N environments, time-major [T, N, ...]; B = T * N samples; P distribution parameters.
"""

from typing import Any

import keras
import tensorflow as tf

from rlweights.learning import shuffling
from rlweights.learning.algorithms import Algorithm, at
from rlweights.learning.batch import Batch, Minibatch
from rlweights.learning.distributions import Distribution, bounded
from rlweights.learning.metrics import approx_kl, explained_variance
from rlweights.learning.networks import ActorCritic
from rlweights.learning.normalization import RewardScaling
from rlweights.learning.returns import generalized_advantages
from rlweights.learning.rule_signals import RuleSignals
from rlweights.learning.samples import ActionBounds, sample_scalars
from rlweights.weights.arrays import Scalar, Tensor, Variable
from rlweights.weights.diagnostics import masked_mean, update_to_weight_ratio
from rlweights.weights.optimizer import InterventionOptimizer

SUMMED = ("loss", "policy_gradient_loss", "value_loss", "entropy_loss", "approx_kl", "clip_fraction")
"""Means over the optimizer steps of an iteration."""

_NORMS = ("grad_norm", "policy_grad_norm")
_COUNTS = ("applied", "skipped", "nonfinite_loss", "nonfinite_gradients")
_OF_THE_LAST_EPOCH = ("last_kl", "last_steps")
"""Sums that begin anew with each epoch: the mean over all epochs hides what the last one does."""


class Learner:
    """Updates an agent by rollouts.

    Args:
        algorithm: Hyper-parameters and loss.
        networks: Policy and value network.
        distribution: Of the actions, over the policy's output.
        optimizer: Built on `networks.trainable_variables`.
        num_envs: Number of environments N.
        total_iterations: The budget; schedules run over it.
        seed: Seed of the shuffles.
        normalize_rewards: Whether rewards are scaled by running statistics.
        action_bounds: Of continuous actions, for records of how many are outside.
        features: Whether observations [D] are numbers that mean something one by one, for records of theirs.

    Raises:
        ValueError: If the size of a minibatch does not divide that of a rollout.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        networks: ActorCritic,
        distribution: Distribution,
        optimizer: InterventionOptimizer,
        *,
        num_envs: int,
        total_iterations: int,
        seed: int = 0,
        normalize_rewards: bool = False,
        action_bounds: ActionBounds | None = None,
        features: bool = False,
    ):
        self.algorithm = algorithm
        self.networks = networks
        self.distribution = distribution
        self.optimizer = optimizer
        self.total_iterations = total_iterations
        self.seed = seed
        self.reward_scaling = None
        if normalize_rewards:
            self.reward_scaling = RewardScaling(num_envs, algorithm.gamma, name="reward_scaling")
        # int64: variables of int32 stay in the memory of the host, where programs on a GPU do not find them.
        self.iteration = keras.Variable(0, dtype="int64", trainable=False, name="iteration")
        self.bad_streak = keras.Variable(0, dtype="int64", trainable=False, name="bad_streak")
        self.gradients = {
            v.path: keras.Variable(tf.zeros(v.shape), trainable=False, name="gradient")
            for v in networks.trainable_variables
            if len(v.shape) >= 2
        }
        """Of each kernel, by path: its gradient in the newest step, before `max_grad_norm` scaled it.

        They serve histograms only, so a checkpoint need not hold them.
        """
        rollout = algorithm.n_steps * num_envs
        self._batch_size = algorithm.batch_size or rollout
        if rollout % self._batch_size:
            raise ValueError(f"batch_size = {self._batch_size} does not divide a rollout of {rollout} steps")
        self._minibatches = rollout // self._batch_size
        self._signals = RuleSignals(optimizer, networks, distribution)
        self._action_bounds = action_bounds
        self._features = features
        own = {id(v) for v in networks.policy.trainable_variables}
        self._is_policys = [id(v) in own for v in networks.trainable_variables]

    @property
    def variables(self) -> list[Variable]:
        """Everything that a checkpoint must hold to go on exactly."""
        own = [self.iteration, self.bad_streak]
        scaling = [] if self.reward_scaling is None else self.reward_scaling.variables
        return [*own, *self.networks.variables, *scaling, *self.optimizer.variables]

    def progress(self) -> Scalar:
        """Returns the part of the budget that is used up, a scalar in [0, 1]."""
        done = tf.cast(self.iteration.value, tf.float32) / float(self.total_iterations)
        return tf.minimum(done, 1.0)

    # One iteration --------------------------------------------------------------------------------

    def learn(self, batch: Batch) -> dict[str, Scalar]:
        """Updates the agent by one rollout, ends the iteration, and returns scalars for the records.

        The weights must still be those that acted: log-probabilities of the acting policy are computed
        here, at the live weights, before the first step.
        """
        progress = self.progress()
        self.optimizer.learning_rate.assign(at(self.algorithm.learning_rate, progress))
        samples, metrics = self._prepare(batch)
        before = self._flat_weights()
        metrics |= self._optimize(samples, progress)
        if self.networks.masking is not None and "train/entropy_fraction" in metrics:
            # The uniform policy over what is allowed has less entropy than that over all actions.
            most = self.networks.masking.max_entropy(_flatten(batch.observations))
            share = -metrics["train/entropy_loss"] / masked_mean(most, _flatten(batch.valid))
            metrics["train/entropy_fraction"] = tf.where(tf.math.is_finite(share), share, 1.0)
        after = self._flat_weights()
        metrics["update/update_to_weight_ratio"] = update_to_weight_ratio(before, after)
        metrics["update/nonfinite_streak"] = tf.cast(self.bad_streak.value, tf.float32)
        metrics["train/learning_rate"] = tf.convert_to_tensor(self.optimizer.learning_rate)
        if self.networks.log_std is not None:
            metrics["train/std"] = tf.reduce_mean(tf.exp(bounded(self.networks.log_std.value)))
        self.iteration.assign_add(1)
        self._signals.updated(metrics, _flatten(batch.observations), self.progress())
        self.optimizer.end_iteration()
        metrics["update/nonfinite_weights"] = _count(~tf.math.is_finite(self._flat_weights()))
        metrics |= {f"intervention/{name}": value for name, value in self.optimizer.metrics().items()}
        if self.networks.normalization is not None:
            seen = self.networks.seen(_flatten(batch.observations))
            self.networks.normalization.update(seen, _flatten(batch.valid))
        return metrics

    def _prepare(self, batch: Batch) -> tuple[tuple[Tensor, Minibatch], dict[str, Scalar]]:
        """Computes log-probabilities, values and advantages of a rollout, each network in one pass."""
        observations = _flatten(batch.observations)
        valid, masking = _flatten(batch.valid), self.networks.masking
        parameters = self.networks.policy(observations)
        actions = _flatten(batch.actions)
        log_prob = self.distribution.log_prob(parameters, actions)

        all_observations = tf.concat([batch.observations, batch.last_observations[None]], axis=0)
        all_values = tf.reshape(
            self.networks.values(_flatten(all_observations)),
            [batch.rewards.shape[0] + 1, batch.rewards.shape[1]],
        )
        values = all_values[:-1]
        next_values = tf.where(batch.has_final > 0, batch.final_values, all_values[1:])
        continues = (1.0 - batch.terminated) * (1.0 - batch.truncated)
        rewards = batch.rewards
        if self.reward_scaling is not None:
            rewards = self.reward_scaling.scale(rewards, continues, batch.valid)
        advantages = generalized_advantages(
            rewards,
            values,
            next_values,
            self.algorithm.gamma * (1.0 - batch.terminated),
            continues,
            self.algorithm.gae_lambda,
        )
        broken = _nonfinite_rows(observations)
        # A clipped or saturated infinity would go unnoticed: what follows from it must not be finite.
        advantages = tf.where(tf.reshape(broken, advantages.shape), float("nan"), advantages)
        returns = advantages + values
        metrics = {
            "train/explained_variance": explained_variance(values, returns, batch.valid),
            "update/nonfinite_observations": _count(_nonfinite_rows(_flatten(all_observations))),
            "update/nonfinite_rewards": _count(~tf.math.is_finite(batch.rewards)),
            **sample_scalars(
                batch._replace(observations=self.networks.seen(batch.observations)),
                *(returns, self.distribution, self._action_bounds, self._features),
            ),
            **({} if masking is None else masking.scalars(observations, valid)),
        }
        self._signals.acted(observations, parameters, valid)
        minibatch = Minibatch(
            actions, log_prob, _flatten(values), _flatten(advantages), _flatten(returns), valid
        )
        return (observations, minibatch), metrics

    def _optimize(self, samples: tuple[Tensor, Minibatch], progress: Scalar) -> dict[str, Scalar]:
        """Runs all epochs of minibatches and returns the means of what they report."""
        epochs, minibatches, size = self.algorithm.n_epochs, self._minibatches, self._batch_size

        def epoch(number: Scalar, stopped: Scalar, sums: dict[str, Scalar]) -> tuple[Any, ...]:
            shuffled = samples
            sums = sums | {name: tf.where(stopped, sums[name], 0.0) for name in _OF_THE_LAST_EPOCH}
            if minibatches > 1:
                counter = tf.cast(self.iteration.value, tf.int32) * epochs + number
                order = shuffling.permutation(minibatches * size, self.seed, "shuffle", counter)
                shuffled = tf.nest.map_structure(lambda x: tf.gather(x, order), samples)

            def minibatch(i: Scalar, stopped: Scalar, sums: dict[str, Scalar]) -> tuple[Any, ...]:
                part = tf.nest.map_structure(lambda x: _slice(x, i * size, size), shuffled)
                stopped, scalars = self._step(part, stopped, progress)
                return i + 1, stopped, tf.nest.map_structure(tf.add, sums, scalars)

            if minibatches == 1:
                _, stopped, sums = minibatch(tf.constant(0), stopped, sums)
            else:
                _, stopped, sums = tf.while_loop(
                    lambda i, *_: i < minibatches,
                    minibatch,
                    (tf.constant(0), stopped, sums),
                    maximum_iterations=minibatches,
                )
            return number + 1, stopped, sums

        names = (*SUMMED, *_NORMS, *_COUNTS, *_OF_THE_LAST_EPOCH, "steps")
        sums = {name: tf.zeros([]) for name in names}
        state = (tf.constant(0), tf.constant(False), sums)
        if epochs == 1:
            _, _, sums = epoch(*state)
        else:
            _, _, sums = tf.while_loop(lambda i, *_: i < epochs, epoch, state, maximum_iterations=epochs)
        steps = tf.maximum(sums["steps"], 1.0)
        metrics = {f"train/{name}": sums[name] / steps for name in SUMMED}
        metrics["train/approx_kl_last"] = sums["last_kl"] / tf.maximum(sums["last_steps"], 1.0)
        if self.distribution.max_entropy is not None:
            metrics["train/entropy_fraction"] = -metrics["train/entropy_loss"] / self.distribution.max_entropy
        metrics |= {f"update/{name}": sums[name] / tf.maximum(sums["applied"], 1.0) for name in _NORMS}
        return metrics | {f"update/{name}": sums[name] for name in _COUNTS}

    # One optimizer step ---------------------------------------------------------------------------

    def _step(
        self, part: tuple[Tensor, Minibatch], stopped: Scalar, progress: Scalar
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Makes one optimizer step, unless the update has been stopped or would not be finite."""
        variables = self.networks.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([v.value for v in variables])
            loss, scalars = self._loss(part, progress)
        gradients = tape.gradient(loss, [v.value for v in variables])
        raw, norm = gradients, tf.linalg.global_norm(gradients)
        of_policy = tf.linalg.global_norm([g for g, own in zip(raw, self._is_policys, strict=True) if own])
        if self.algorithm.max_grad_norm is not None:
            scale = tf.minimum(1.0, self.algorithm.max_grad_norm / tf.maximum(norm, 1e-12))
            gradients = [g * scale for g in gradients]
        if self.algorithm.target_divergence is not None:
            stopped = stopped | (scalars["approx_kl"] > self.algorithm.target_divergence)
        finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
        applies = finite & ~stopped

        def apply() -> None:
            self.optimizer.apply(gradients, variables)
            for variable, gradient in zip(variables, raw, strict=True):
                if variable.path in self.gradients:
                    self.gradients[variable.path].assign(gradient)

        tf.cond(applies, apply, lambda: None)
        bad = ~stopped & ~finite
        streak = tf.where(bad, self.bad_streak.value + 1, tf.where(stopped, self.bad_streak.value, 0))
        self.bad_streak.assign(streak)
        counted = tf.cast(applies, tf.float32)
        # 0 * NaN is NaN: what did not count must be selected away, not multiplied away.
        sums = {k: tf.where(applies, v, 0.0) for k, v in scalars.items()}
        sums |= {
            "grad_norm": tf.where(applies, norm, 0.0),
            "policy_grad_norm": tf.where(applies, of_policy, 0.0),
            "last_kl": tf.where(applies, scalars["approx_kl"], 0.0),
            "last_steps": counted,
            "steps": counted,
            "applied": counted,
            "skipped": tf.cast(bad, tf.float32),
            "nonfinite_loss": tf.cast(~stopped & ~tf.math.is_finite(loss), tf.float32),
            "nonfinite_gradients": tf.cast(~stopped & ~tf.math.is_finite(norm), tf.float32),
        }
        return stopped, sums

    def _loss(self, part: tuple[Tensor, Minibatch], progress: Scalar) -> tuple[Scalar, dict[str, Scalar]]:
        """The whole loss of a minibatch: policy, value and entropy, averaged over its valid samples."""
        observations, batch = part
        size = tf.maximum(tf.reduce_sum(batch.valid), 1.0)

        def mean(x: Tensor) -> Scalar:
            return tf.reduce_sum(x * batch.valid) / size

        if self.algorithm.normalize_advantage and self._batch_size > 1:
            centered = batch.advantages - mean(batch.advantages)
            deviation = tf.sqrt(mean(centered * centered))
            batch = batch._replace(advantages=centered / (deviation + 1e-8))
        parameters = self.networks.policy(observations)
        log_prob = self.distribution.log_prob(parameters, batch.actions)
        per_sample, statistics = self.algorithm.policy_loss(log_prob, batch, progress)
        policy_loss = mean(per_sample)
        value_loss = mean(self.algorithm.value_loss(self.networks.values(observations), batch, progress))
        entropy_loss = -mean(self.distribution.entropy(parameters))
        loss = (
            policy_loss
            + at(self.algorithm.ent_coef, progress) * entropy_loss
            + self.algorithm.vf_coef * value_loss
        )
        log_ratio = tf.stop_gradient(log_prob - batch.old_log_prob)
        return loss, {
            "loss": loss,
            "policy_gradient_loss": policy_loss,
            "value_loss": value_loss,
            "entropy_loss": entropy_loss,
            "approx_kl": approx_kl(tf.stop_gradient(log_prob), batch.old_log_prob, batch.valid),
            "clip_fraction": mean(statistics.get("clip_fraction", tf.zeros_like(log_ratio))),
        }

    def _flat_weights(self) -> Tensor:
        return tf.concat([tf.reshape(v.value, [-1]) for v in self.networks.trainable_variables], axis=0)


def _flatten(x: Tensor) -> Tensor:
    """[T, N, ...] -> [T * N, ...]."""
    return tf.reshape(x, [x.shape[0] * x.shape[1], *x.shape[2:]])


def _slice(x: Tensor, start: Scalar, size: int) -> Tensor:
    """The entries [start, start + size) of the first axis; sizes are static under XLA."""
    begin = tf.concat([start[None], tf.zeros([len(x.shape) - 1], tf.int32)], axis=0)
    return tf.slice(x, begin, [size, *x.shape[1:]])


def _nonfinite_rows(x: Tensor) -> Tensor:
    """Whether each of B entries [B, ...] has anything that is not finite."""
    if not x.dtype.is_floating:
        return tf.zeros([x.shape[0]], tf.bool)
    return tf.reduce_any(~tf.math.is_finite(x), axis=list(range(1, len(x.shape))))


def _count(x: Tensor) -> Scalar:
    return tf.reduce_sum(tf.cast(x, tf.float32))
