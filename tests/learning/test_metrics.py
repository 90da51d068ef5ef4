"""Metrics of policies and values: numbers known by hand, and cases without an answer."""

import numpy as np
import pytest
import tensorflow as tf

from rlweights.learning import metrics
from support.scalars import f32, value

E = np.e


def test_policy_churn():
    assert value(metrics.policy_churn(np.array([0, 1, 2, 1]), np.array([0, 2, 2, 0]))) == 2 / 4
    before = np.array([[0, 1], [2, 2], [1, 1], [0, 0]])
    after = np.array([[0, 1], [2, 0], [0, 0], [0, 0]])
    assert value(metrics.policy_churn(before, after)) == 2 / 4


def test_approx_kl():
    old = np.log(f32([0.5, 0.2]))
    new = np.log(f32([0.25, 0.2 * E]))
    # r - 1 - log r: 0.5 - 1 + log 2 and e - 1 - 1.
    expected = np.array([np.log(2) - 0.5, E - 2])
    assert value(metrics.approx_kl(new, old)) == pytest.approx(expected.mean(), rel=1e-5)
    mask = f32([0, 1])
    assert value(metrics.approx_kl(new, old, mask)) == pytest.approx(expected[1], rel=1e-5)


def test_approx_kl_of_tiny_changes_is_not_lost_in_rounding():
    assert value(metrics.approx_kl(f32([1e-3]), f32([0.0]))) == pytest.approx(0.5e-6, rel=1e-3)


def test_approx_kl_estimates_the_divergence():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2])
    actions = np.random.default_rng(0).choice(3, 200_000, p=p)
    estimate = metrics.approx_kl(np.log(q)[actions], np.log(p)[actions])
    assert value(estimate) == pytest.approx((p * np.log(p / q)).sum(), rel=0.02)


def test_clip_fraction():
    old = np.zeros(4, np.float32)
    new = np.log(f32([1.0, 1.3, 0.75, 1.1]))
    assert value(metrics.clip_fraction(new, old, 0.2)) == 2 / 4
    assert value(metrics.clip_fraction(new, old, 0.2, f32([1, 1, 0, 0]))) == 1 / 2


def test_explained_variance():
    returns = f32([1.0, 2.0, 3.0, 4.0])
    assert value(metrics.explained_variance(returns, returns)) == 1.0
    assert value(metrics.explained_variance(returns + 7, returns)) == 1.0
    assert value(metrics.explained_variance(np.zeros(4), returns)) == 0.0
    # Residuals ±1 around their mean against a variance of 1.25.
    values = returns - f32([1, -1, -1, 1])
    assert value(metrics.explained_variance(values, returns)) == pytest.approx(1 - 1 / 1.25)
    assert value(metrics.explained_variance(-returns, returns)) == pytest.approx(-3.0)


def test_explained_variance_leaves_out_what_is_masked():
    returns = f32([[1.0, 2.0, np.nan], [3.0, 4.0, 99.0]])
    values = f32([[1.0, 2.0, 5.0], [3.0, 4.0, 5.0]])
    mask = f32([[1, 1, 0], [1, 1, 0]])
    assert value(metrics.explained_variance(values, returns, mask)) == 1.0


@pytest.mark.parametrize("constant", [0.0, 3.3, 1e6])
def test_returns_without_spread_have_no_variance_to_explain(constant):
    returns = np.full(1000, constant, np.float32)
    values = np.random.default_rng(0).normal(size=1000)
    assert value(metrics.explained_variance(values, returns)) == 0.0


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (metrics.policy_churn, (np.zeros(0, int), np.zeros(0, int)), 0.0),
        (metrics.approx_kl, (np.zeros(0, np.float32), np.zeros(0, np.float32)), 0.0),
        (metrics.approx_kl, (np.ones(3), np.zeros(3), np.zeros(3)), 0.0),
        (metrics.clip_fraction, (np.ones(3), np.zeros(3), 0.1, np.zeros(3)), 0.0),
        (metrics.explained_variance, (np.zeros(0), np.zeros(0)), 0.0),
        (metrics.explained_variance, (np.ones(3), np.arange(3), np.zeros(3)), 0.0),
    ],
)
def test_cases_without_a_number_return_what_they_say(function, arguments, expected):
    assert value(function(*arguments)) == expected


def everything(h, other, actions, later, mask):
    return {
        "churn": metrics.policy_churn(actions, later),
        "kl": metrics.approx_kl(h, other, mask),
        "clip": metrics.clip_fraction(h, other, 0.2, mask),
        "variance": metrics.explained_variance(h, other, mask),
    }


@pytest.mark.parametrize("xla", [False, True])
def test_compiled_metrics_agree_with_eager_ones(xla):
    rng = np.random.default_rng(0)
    h, other = (np.tanh(3 * rng.normal(size=(2, 64, 6)))).astype(np.float32)
    actions, later = rng.integers(0, 3, (2, 64))
    mask = (rng.random((64, 6)) < 0.7).astype(np.float32)
    arguments = [tf.constant(x) for x in (h, other, actions, later, mask)]
    compiled = tf.function(everything, jit_compile=xla, autograph=False)(*arguments)
    for name, expected in everything(*arguments).items():
        np.testing.assert_allclose(compiled[name], expected, rtol=1e-4, err_msg=name)
