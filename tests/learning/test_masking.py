"""Masks behind observations: nothing forbidden is ever chosen, and nothing is NaN."""

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from rlweights.learning.acting import NumpyPolicy
from rlweights.learning.algorithms import PPO
from rlweights.learning.distributions import for_space
from rlweights.learning.masking import Masking
from rlweights.learning.networks import actor_critic
from rlweights.learning.spaces import observation_encoder
from rlweights.weights.compilation import compiled
from support.builders import learn, random_batch, tiny_learner
from support.masked import PARTS, counts, drawn

B = 400


@pytest.fixture(scope="module", params=PARTS)
def masked(request):
    """A space, its distribution, networks of large weights, and observations with random masks [B, 3 + P]."""
    space = PARTS[request.param]
    distribution, masking = for_space(space), Masking((3,), tuple(counts(space)))
    networks = actor_critic((3,), masking.size, hidden_sizes=(8,), masking=masking, policy_gain=100.0)
    rng = np.random.default_rng(0)
    masks = np.stack([drawn(rng, space) for _ in range(B)])
    looks = rng.normal(size=(B, 3)).astype(np.float32)
    return space, distribution, networks, np.concatenate([looks, masks.astype(np.float32)], axis=1)


def allowed(space, masks, actions):
    """Whether each of the actions [B, ...] is allowed by its mask [B, P]."""
    starts = np.cumsum([0, *counts(space)[:-1]])
    places = np.reshape(actions, (len(masks), -1)) + starts
    return (
        np.take_along_axis(masks, places, axis=1).all(axis=1)
        if len(starts) > 1
        else masks[np.arange(len(masks)), places[:, 0]] > 0
    )


def test_nothing_forbidden_is_chosen_and_every_gradient_is_finite(masked):
    space, distribution, networks, observations = masked
    masks, policy = observations[:, 3:], networks.policy
    rng = np.random.default_rng(1)
    extreme = np.zeros((B, distribution.noise_size), np.float32)
    extreme[::2] = np.float32(1.0) - np.finfo(np.float32).epsneg  # the least and the most likely draws

    def program(x, noise):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(networks.policy.trainable_variables[0].value)
            raw = networks.policy.head(networks.policy.trunk(networks.masking.seen(x)))
            tape.watch(raw)
            parameters = networks.masking.applied(raw, x)
            actions = distribution.sample(parameters, noise)
            other = networks.masking.applied(0.5 * raw, x)
            parts = (
                distribution.log_prob(parameters, actions),
                distribution.entropy(parameters),
                distribution.kl(parameters, other),
                distribution.kl(other, parameters),
            )
        gradients = [tape.gradient(part, raw) for part in parts]
        return (
            actions,
            distribution.mode(parameters),
            parameters,
            distribution.distance(parameters, other),
            [
                *parts,
                *gradients,
            ],
        )

    spec = (tf.TensorSpec(observations.shape), tf.TensorSpec((B, distribution.noise_size)))
    run = compiled(program, *spec)
    numpy = NumpyPolicy(policy)
    for noise in (extreme, *(distribution.noise(rng, (B,)) for _ in range(10))):
        sampled, mode, parameters, distance, found = run(tf.constant(observations), tf.constant(noise))
        np.testing.assert_allclose(parameters, numpy(observations), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(parameters, policy(observations), rtol=1e-4, atol=1e-4)
        by_numpy = distribution.sample_numpy(numpy(observations), noise)
        for actions in (sampled, mode, by_numpy, distribution.mode_numpy(numpy(observations))):
            assert allowed(space, masks, np.array(actions)).all()
        assert all(np.isfinite(x).all() for x in (distance, *found))
        for gradient in found[4:]:
            assert not np.array(gradient)[masks == 0].any()
    unmasked = distribution.sample_numpy(np.zeros((B, networks.masking.size), np.float32), noise)
    assert not allowed(space, masks, unmasked).all()  # else the test could see nothing


def test_entropy_and_log_probabilities_are_those_over_what_is_allowed(masked):
    space, distribution, networks, observations = masked
    parameters = networks.masking.applied(
        np.float32(0.02) * np.array(networks.policy(observations)), observations
    )
    actions = distribution.mode(parameters)
    entropy, most, log_prob = np.zeros(B), np.zeros(B), np.zeros(B)
    for n in range(B):
        start = 0
        for i, count in enumerate(counts(space)):
            part = slice(start, start + count)
            mask = observations[n, 3:][part] > 0
            logits = np.array(parameters)[n, part].astype(np.float64)
            p = np.exp(logits[mask] - logits[mask].max())
            p /= p.sum()
            entropy[n] -= (p * np.log(p)).sum()
            most[n] += np.log(mask.sum())
            log_prob[n] += np.log(p[mask[: int(np.ravel(actions[n])[i]) + 1].sum() - 1])
            start += count
    np.testing.assert_allclose(distribution.entropy(parameters), entropy, atol=2e-6)
    np.testing.assert_allclose(distribution.log_prob(parameters, actions), log_prob, atol=2e-6)
    np.testing.assert_allclose(networks.masking.max_entropy(observations), most, atol=2e-6)
    assert float(networks.masking.without_choice(observations)) == 0.0
    observations = observations.copy()
    observations[5, -counts(space)[-1] :] = 0.0
    assert float(networks.masking.without_choice(tf.constant(observations))) == 1.0


def test_bytes_of_images_stay_bytes_and_masks_stay_out_of_layers_and_statistics():
    space = spaces.Box(0, 255, (40, 44, 3), np.uint8)
    inner, masking = observation_encoder(space), Masking((40, 44, 3), (4,))
    encoder = masking.encoder(inner)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 44, 3), dtype=np.uint8)
    masks = np.array([[1, 0, 0, 1], [0, 1, 0, 0]], np.int8)
    encoded = encoder.encode({"observation": images, "action_mask": masks})
    assert encoded.dtype == np.uint8
    assert encoded.shape == (2, *encoder.shape)
    np.testing.assert_array_equal(masking.seen(encoded), images)
    np.testing.assert_array_equal(masking.seen(tf.constant(encoded)), images)
    np.testing.assert_array_equal(masking.allowed(encoded), masks > 0)
    with pytest.raises(ValueError, match=r"expected masks of shape \(N, 4\). Received: \(2, 3\)"):
        encoder.encode({"observation": images, "action_mask": masks[:, :3]})

    options = {"normalize_observations": True, "masking": Masking((3,), (3,)), "hidden_sizes": (4,)}
    learner = tiny_learner(PPO(n_steps=8, batch_size=4, n_epochs=2), **options)
    batch = random_batch(learner, observation_shape=(6,))
    batch.observations[..., 3:] = batch.last_observations[..., 3:] = 1.0
    batch.observations[0, 0, 4:] = 0.0
    scalars = learn(learner, batch)
    assert learner.networks.normalization.mean.shape == (3,)
    np.testing.assert_allclose(scalars["rollout/allowed_actions"], 3.0 - 2.0 / 15.0, rtol=1e-5)
    most = np.log(3.0) * 14.0 / 15.0  # one of the 16 steps was a reset
    np.testing.assert_allclose(
        scalars["train/entropy_fraction"], -scalars["train/entropy_loss"] / most, rtol=1e-5
    )
