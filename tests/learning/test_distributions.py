import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from rlweights.learning.distributions import (
    LOG_STD_LIMIT,
    Bernoulli,
    Categorical,
    Gaussian,
    MultiCategorical,
    for_space,
)
from rlweights.weights import prng

ALL = [Categorical(4), MultiCategorical([2, 3, 5]), Bernoulli(3), Gaussian(2)]


def f32(values):
    return np.asarray(values, np.float32)


@pytest.fixture(params=ALL, ids=lambda d: type(d).__name__)
def distribution(request):
    return request.param


def some_parameters(distribution, batch_shape=(6,), seed=0, scale=1.0):
    shape = (*batch_shape, distribution.parameter_size)
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def some_actions(distribution, parameters, seed=1):
    noise = distribution.noise(np.random.default_rng(seed), parameters.shape[:-1])
    return distribution.sample_numpy(parameters, noise)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


# Sampling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_shape", [(), (500,), (20, 30)])
def test_numpy_and_tensorflow_sample_the_same(distribution, batch_shape):
    parameters = some_parameters(distribution, batch_shape)
    noise = distribution.noise(np.random.default_rng(1), batch_shape)
    assert noise.shape == distribution.noise_shape(batch_shape)
    assert noise.dtype == np.float32
    pairs = [
        (distribution.sample_numpy(parameters, noise), distribution.sample(parameters, noise)),
        (distribution.mode_numpy(parameters), distribution.mode(parameters)),
    ]
    for in_numpy, in_tensorflow in pairs:
        assert in_numpy.shape == (*batch_shape, *distribution.action_shape)
        assert in_numpy.dtype == distribution.action_dtype
        assert in_tensorflow.dtype == tf.as_dtype(distribution.action_dtype)
        np.testing.assert_allclose(in_numpy, in_tensorflow, atol=1e-6)


def test_sampling_is_the_same_in_a_graph_and_under_xla(distribution):
    parameters = some_parameters(distribution, (50,))
    noise = distribution.noise(np.random.default_rng(1), (50,))
    eager = distribution.sample(parameters, noise)
    for xla in (False, True):
        compiled = tf.function(distribution.sample, jit_compile=xla, autograph=False)
        np.testing.assert_allclose(compiled(parameters, noise), eager, atol=1e-6)


def test_noise_in_a_graph_takes_its_kind_and_shape(distribution):
    draw = {"uniform": prng.uniform, "normal": prng.normal}[distribution.noise_kind]
    noise = draw(distribution.noise_shape((4, 5)), 0, "actions", 0)
    actions = distribution.sample(some_parameters(distribution, (4, 5)), noise)
    assert actions.shape == (4, 5, *distribution.action_shape)


def frequencies(distribution, parameters, n=40_000):
    """Shares of each value of each component, over n samples."""
    noise = distribution.noise(np.random.default_rng(2), (n,))
    actions = distribution.sample_numpy(np.broadcast_to(parameters, (n, len(parameters))), noise)
    return actions.reshape(n, -1)


def assert_sampled(values, probabilities):
    counts = np.bincount(values, minlength=len(probabilities))
    assert stats.chisquare(counts, probabilities * len(values)).pvalue > 1e-3


def test_categorical_samples_follow_the_softmax():
    logits = np.array([0.0, 1.0, -2.0, 0.5], np.float32)
    assert_sampled(frequencies(Categorical(4), logits)[:, 0], softmax(logits.astype(float)))


def test_multicategorical_samples_follow_each_softmax_independently():
    logits = np.array([0.0, 1.0, -1.0, 0.0, 2.0], np.float32)
    actions = frequencies(MultiCategorical([2, 3]), logits)
    joint = np.outer(softmax(logits[:2].astype(float)), softmax(logits[2:].astype(float)))
    assert_sampled(actions[:, 0] * 3 + actions[:, 1], joint.ravel())


def test_bernoulli_samples_follow_the_sigmoid():
    logits = np.array([0.0, 2.0], np.float32)
    actions = frequencies(Bernoulli(2), logits)
    on = sigmoid(logits)
    joint = np.outer([1 - on[0], on[0]], [1 - on[1], on[1]])
    assert_sampled(actions[:, 0] * 2 + actions[:, 1], joint.ravel())


def test_gaussian_samples_are_normal():
    parameters = np.array([1.0, -5.0, np.log(0.5), np.log(3.0)], np.float32)
    actions = frequencies(Gaussian(2), parameters)
    for column, mean, std in zip(actions.T, (1.0, -5.0), (0.5, 3.0), strict=True):
        assert stats.kstest(column, stats.norm(mean, std).cdf).pvalue > 1e-3


def test_noise_at_the_ends_of_its_range_is_harmless():
    almost_one = np.nextafter(f32(1), f32(0))
    noise = np.array([[0.0, 0.0], [0.0, almost_one], [almost_one, 0.0]], np.float32)
    for distribution, expected in [(Categorical(2), [1, 1, 0]), (Bernoulli(2), [[1, 1], [1, 0], [0, 1]])]:
        logits = np.broadcast_to(f32([0.0, 0.1]), (3, 2))
        np.testing.assert_array_equal(distribution.sample_numpy(logits, noise), expected)
        for xla in (False, True):
            compiled = tf.function(distribution.sample, jit_compile=xla, autograph=False)
            np.testing.assert_array_equal(compiled(logits, noise), expected)


def test_what_has_no_probability_is_never_sampled():
    logits, noise = f32([[-200.0]]), f32([[0.0]])
    np.testing.assert_array_equal(Bernoulli(1).sample(logits, noise), [[0]])
    np.testing.assert_array_equal(Bernoulli(1).sample_numpy(logits, noise), [[0]])


def test_a_logit_far_above_the_others_always_wins():
    logits = np.tile(f32([0.0, 60.0]), (1000, 1))
    for distribution in (Categorical(2), Bernoulli(2)):
        actions = some_actions(distribution, logits)
        np.testing.assert_array_equal(actions if actions.ndim == 1 else actions[:, 1], 1)


# Probabilities --------------------------------------------------------------------------------------


def test_categorical_against_scipy():
    logits = some_parameters(Categorical(4))
    other = some_parameters(Categorical(4), seed=7)
    actions = np.array([0, 1, 2, 3, 0, 1], np.int32)
    p, q = softmax(logits), softmax(other)
    distribution = Categorical(4)
    np.testing.assert_allclose(
        distribution.log_prob(logits, actions), np.log(p[np.arange(6), actions]), rtol=1e-5
    )
    np.testing.assert_allclose(distribution.entropy(logits), stats.entropy(p, axis=1), rtol=1e-5)
    np.testing.assert_allclose(distribution.kl(logits, other), stats.entropy(p, q, axis=1), rtol=1e-4)


def test_multicategorical_is_the_sum_of_its_parts():
    distribution, parts = MultiCategorical([2, 3]), [Categorical(2), Categorical(3)]
    logits, other = some_parameters(distribution), some_parameters(distribution, seed=7)
    actions = some_actions(distribution, logits)
    split, split_other = np.split(logits, [2], axis=1), np.split(other, [2], axis=1)
    for got, terms in [
        (
            distribution.log_prob(logits, actions),
            [c.log_prob(x, actions[:, i]) for i, (c, x) in enumerate(zip(parts, split, strict=True))],
        ),
        (distribution.entropy(logits), [c.entropy(x) for c, x in zip(parts, split, strict=True)]),
        (
            distribution.kl(logits, other),
            [c.kl(x, y) for c, x, y in zip(parts, split, split_other, strict=True)],
        ),
    ]:
        np.testing.assert_allclose(got, sum(np.asarray(t) for t in terms), rtol=1e-6)


def test_bernoulli_against_scipy():
    distribution = Bernoulli(3)
    logits, other = some_parameters(distribution), some_parameters(distribution, seed=7)
    actions = some_actions(distribution, logits)
    p, q = sigmoid(logits), sigmoid(other)
    np.testing.assert_allclose(
        distribution.log_prob(logits, actions), stats.bernoulli.logpmf(actions, p).sum(1), rtol=1e-5
    )
    np.testing.assert_allclose(distribution.entropy(logits), stats.bernoulli.entropy(p).sum(1), rtol=1e-5)
    bits = stats.entropy(np.stack([p, 1 - p]), np.stack([q, 1 - q]), axis=0)
    np.testing.assert_allclose(distribution.kl(logits, other), bits.sum(1), rtol=1e-4)


def test_gaussian_against_scipy():
    distribution = Gaussian(2)
    parameters = some_parameters(distribution)
    actions = some_actions(distribution, parameters)
    normal = stats.norm(parameters[:, :2], np.exp(parameters[:, 2:]))
    np.testing.assert_allclose(
        distribution.log_prob(parameters, actions), normal.logpdf(actions).sum(1), rtol=1e-4
    )
    np.testing.assert_allclose(distribution.entropy(parameters), normal.entropy().sum(1), rtol=1e-5)


def test_gaussian_kl_is_its_integral():
    p, q = f32([[0.3, np.log(0.5)]]), f32([[-0.4, np.log(0.8)]])
    density, other = stats.norm(0.3, 0.5), stats.norm(-0.4, 0.8)
    expected, _ = integrate.quad(lambda x: density.pdf(x) * (density.logpdf(x) - other.logpdf(x)), -6, 6)
    np.testing.assert_allclose(Gaussian(1).kl(p, q), [expected], rtol=1e-5)


def test_entropy_is_the_mean_surprise(distribution):
    parameters = some_parameters(distribution, ())
    n = 40_000
    many = np.broadcast_to(parameters, (n, len(parameters)))
    surprise = -distribution.log_prob(many, some_actions(distribution, many)).numpy()
    error = 4 * surprise.std() / n**0.5
    np.testing.assert_allclose(distribution.entropy(parameters), surprise.mean(), atol=error)


def test_kl_is_zero_for_equals_and_else_positive(distribution):
    p, q = some_parameters(distribution), some_parameters(distribution, seed=7)
    np.testing.assert_allclose(distribution.kl(p, p), np.zeros(6), atol=1e-6)
    assert (distribution.kl(p, q).numpy() > 0.01).all()


def test_the_mode_is_the_most_likely_action(distribution):
    parameters = some_parameters(distribution)
    best = distribution.log_prob(parameters, distribution.mode_numpy(parameters)).numpy()
    for seed in range(20):
        sampled = distribution.log_prob(parameters, some_actions(distribution, parameters, seed))
        assert (sampled.numpy() <= best + 1e-6).all()


# Extremes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e2, 1e4, 1e30])
@pytest.mark.parametrize("xla", [False, True])
def test_values_and_gradients_are_finite_at_extreme_parameters(distribution, scale, xla):
    parameters = some_parameters(distribution, scale=scale)
    if isinstance(distribution, Gaussian):  # Means of 1e30 have squares beyond float32.
        parameters[:, :2] = np.clip(parameters[:, :2], -1e6, 1e6)
    other = -parameters
    actions = some_actions(distribution, other)  # Unlikely ones.
    assert np.isfinite(actions).all()

    def losses(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            values = (
                distribution.log_prob(parameters, actions),
                distribution.entropy(parameters),
                distribution.kl(parameters, other),
            )
            total = tf.add_n([tf.reduce_mean(v) for v in values])
        return *values, tape.gradient(total, parameters)

    for result in tf.function(losses, jit_compile=xla, autograph=False)(tf.constant(parameters)):
        assert np.isfinite(result).all()


def test_log_stddevs_are_limited_alike_everywhere():
    distribution = Gaussian(1)
    beyond, at = f32([[0.0, 500.0]]), f32([[0.0, LOG_STD_LIMIT]])
    noise = f32([[0.5]])
    np.testing.assert_array_equal(
        distribution.sample_numpy(beyond, noise), distribution.sample_numpy(at, noise)
    )
    np.testing.assert_array_equal(distribution.sample(beyond, noise), distribution.sample(at, noise))
    np.testing.assert_array_equal(distribution.log_prob(beyond, noise), distribution.log_prob(at, noise))
    np.testing.assert_array_equal(distribution.entropy(beyond), distribution.entropy(at))


def test_unlikely_actions_keep_their_precise_log_probability():
    logits = f32([[100.0, 0.0]])
    np.testing.assert_allclose(Categorical(2).log_prob(logits, np.array([1])), [-100.0])
    np.testing.assert_allclose(Bernoulli(1).log_prob(logits[:, :1], np.array([[0]])), [-100.0])


# Distance -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ALL[:3], ids=lambda d: type(d).__name__)
def test_distance_of_discrete_policies_is_the_mean_divergence(distribution):
    p, q = some_parameters(distribution), some_parameters(distribution, seed=7)
    divergences = distribution.kl(p, q).numpy()
    np.testing.assert_allclose(distribution.distance(p, q), divergences.mean(), rtol=1e-6)
    mask = f32([1, 0, 0, 1, 0, 1])
    np.testing.assert_allclose(distribution.distance(p, q, mask), divergences[[0, 3, 5]].mean(), rtol=1e-6)


def test_distance_of_gaussians_is_the_root_mean_square_of_the_means():
    # Log standard deviations differ, and do not count.
    p = f32([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    q = f32([[3.0, 1.0, 5.0, 5.0], [1.0, 3.0, -5.0, 5.0]])
    np.testing.assert_allclose(Gaussian(2).distance(p, q), ((9 + 1 + 0 + 4) / 4) ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(Gaussian(2).distance(p, q, f32([1, 0])), 5**0.5, rtol=1e-6)


def test_distance_is_zero_without_samples_and_between_equals(distribution):
    p, q = some_parameters(distribution), some_parameters(distribution, seed=7)
    assert distribution.distance(p, q, np.zeros(6, np.float32)).numpy() == 0.0
    assert distribution.distance(p, p).numpy() == pytest.approx(0.0, abs=1e-6)


# Shapes and spaces ----------------------------------------------------------------------------------


def test_shapes_that_would_broadcast_are_refused():
    for distribution, actions in [
        (Categorical(4), np.zeros((6, 1), np.int32)),
        (Categorical(4), np.zeros(1, np.int32)),
        (Gaussian(1), np.zeros(6, np.float32)),
        (Gaussian(2), np.zeros((6, 1), np.float32)),
        (Bernoulli(3), np.zeros((6, 1), np.int8)),
        (MultiCategorical([2, 3]), np.zeros((6, 1), np.int32)),
    ]:
        with pytest.raises(ValueError, match="Received shapes"):
            distribution.log_prob(some_parameters(distribution), actions)
    with pytest.raises(ValueError, match="Received shapes"):
        Gaussian(2).log_prob(np.zeros((6, 2), np.float32), np.zeros((6, 2), np.float32))


def test_unknown_batch_sizes_are_accepted(distribution):
    spec = [
        tf.TensorSpec([None, distribution.parameter_size]),
        tf.TensorSpec([None, *distribution.action_shape], distribution.action_dtype),
    ]
    parameters = some_parameters(distribution)
    actions = some_actions(distribution, parameters)
    np.testing.assert_allclose(
        tf.function(distribution.log_prob, input_signature=spec, autograph=False)(parameters, actions),
        distribution.log_prob(parameters, actions),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("space", "kind", "parameters", "shape"),
    [
        (gym.spaces.Discrete(3, start=5), Categorical, 3, ()),
        (gym.spaces.MultiDiscrete([2, 3, 4]), MultiCategorical, 9, (3,)),
        (gym.spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), MultiCategorical, 14, (4,)),
        (gym.spaces.MultiBinary([2, 3]), Bernoulli, 6, (6,)),
        (gym.spaces.Box(-1, 1, (2, 3)), Gaussian, 12, (6,)),
        (gym.spaces.Box(-1, 1, (1,), np.float64), Gaussian, 2, (1,)),
    ],
)
def test_each_space_has_its_distribution(space, kind, parameters, shape):
    distribution = for_space(space)
    assert type(distribution) is kind
    assert (distribution.parameter_size, distribution.action_shape) == (parameters, shape)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Box(0, 255, (2,), np.uint8),
        gym.spaces.Text(3),
        gym.spaces.Dict(a=gym.spaces.Discrete(2)),
    ],
)
def test_other_spaces_are_refused_and_shown(space):
    with pytest.raises(ValueError, match="unsupported action space") as error:
        for_space(space)
    assert str(space) in str(error.value)


def test_there_must_be_something_to_choose():
    for kind, size in [(Categorical, 0), (Bernoulli, 0), (Gaussian, 0), (MultiCategorical, [])]:
        with pytest.raises(ValueError, match="at least one parameter"):
            kind(size)
    with pytest.raises(ValueError, match="at least one parameter"):
        MultiCategorical([2, 0])
