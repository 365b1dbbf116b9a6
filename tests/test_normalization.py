"""Running moments, against NumPy on everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import normalization
from rljax.types import Moments


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_batches_give_the_moments_of_everything(shape):
    rng = np.random.default_rng(0)
    centre = 5 * np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape)
    batches = [
        rng.normal(centre + shift, 1 + shift, (size, *shape))
        for shift, size in enumerate((64, 64, 1, 64))
    ]
    moments = normalization.init(shape)
    update = jax.jit(
        lambda moments, batch: normalization.merge(moments, normalization.measure(batch))
    )
    for batch in batches:
        moments = update(moments, jnp.asarray(batch, jnp.float32))
    everything = np.concatenate(batches)
    np.testing.assert_allclose(moments.count, len(everything), rtol=1e-5)
    np.testing.assert_allclose(moments.mean, everything.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(moments.var, everything.var(axis=0), rtol=1e-3)


def test_moments_do_not_drift_in_long_runs():
    """Of 1e8 samples float32 adds 5 in steps of 8, and most increments of the variance not."""
    zeros = jnp.zeros(16)
    start = Moments(jnp.float32(1e8), zeros + 3, zeros + 4, zeros, zeros)

    def step(moments, key):
        batch = 3 + 2 * jax.random.normal(key, (5, 16))
        return normalization.merge(moments, normalization.measure(batch)), None

    keys = jax.random.split(jax.random.key(0), 100_000)
    moments, _ = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(keys)
    np.testing.assert_allclose(moments.var.mean(), 4, atol=1e-4)
    np.testing.assert_allclose(moments.mean.mean(), 3, atol=2e-5)


def test_a_compensated_sum_keeps_what_a_plain_one_loses():
    start = jnp.float32(2**25), jnp.float32(0)
    total, error = jax.jit(
        lambda start: jax.lax.fori_loop(
            0, 100_000, lambda _, sums: normalization.add(*sums, jnp.float32(0.25)), start
        )
    )(start)
    assert float(total) - float(error) == 2**25 + 25_000


def test_observations_are_standardised_and_clipped():
    moments = Moments(jnp.float32(1), jnp.array([2.0, -1.0]), jnp.array([4.0, 0.25]))
    obs = jnp.array([[[4.0, -1.0]], [[2.0, 0.0]], [[1e6, -1e6]]])
    expected = [[[1, 0]], [[0, 2]], [[10, -10]]]
    found = normalization.standardize(moments, obs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_rewards_are_scaled_and_clipped_but_keep_their_mean():
    moments = Moments(jnp.float32(1), jnp.float32(100.0), jnp.float32(4.0))
    found = normalization.scale(moments, jnp.array([[1.0, 6.0], [-1e3, 1e3]]))
    np.testing.assert_allclose(found, [[0.5, 3], [-10, 10]], rtol=1e-5)


def test_a_constant_does_not_divide_by_zero():
    moments = Moments(jnp.float32(9), jnp.array([3.0]), jnp.array([0.0]))
    found = normalization.standardize(moments, jnp.array([[3.0], [4.0]]))
    np.testing.assert_array_equal(found, [[0], [10]])


def test_without_moments_nothing_changes():
    x = jnp.array([[1.0, 1e6]])
    assert normalization.standardize(None, x) is x
    assert normalization.scale(None, x) is x


def test_discounted_returns_begin_anew_at_an_episodes_end():
    rng = np.random.default_rng(1)
    start, rewards, done = rng.normal(size=3), rng.normal(size=(9, 3)), rng.random((9, 3)) < 0.3
    done[-1] = [True, False, False]
    after, sums = start.copy(), np.zeros((9, 3))
    for t, b in np.ndindex(9, 3):
        sums[t, b] = 0.9 * after[b] + rewards[t, b]
        after[b] = 0 if done[t, b] else sums[t, b]
    found = normalization.discounted_returns(
        jnp.asarray(start, jnp.float32), jnp.asarray(rewards, jnp.float32), jnp.asarray(done), 0.9
    )
    np.testing.assert_allclose(found[0], after, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], sums, rtol=1e-5, atol=1e-6)
