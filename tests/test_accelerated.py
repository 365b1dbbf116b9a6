"""What is compiled for an accelerator computes what is compiled for a CPU."""

import dataclasses
import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import Config, a2c, optimizers
from rljax.networks.distributions import Categorical
from rljax.utils import pytrees

SIZES = dict(num_envs=8, num_steps=6, hidden_sizes=(8,), total_timesteps=4800)


def _for_accelerators(*args, cpu, default):
    return default(*args)


accelerated = mock.patch.object(jax.lax, "platform_dependent", side_effect=_for_accelerators)


@pytest.mark.parametrize(
    "env", ["CartPole-v1", pytest.param("Breakout-MinAtar", marks=pytest.mark.slow)]
)
def test_updates_are_the_same(env):
    config = Config(env=env, env_kwargs={}, **SIZES)

    def after_updates(config, key):
        return jax.lax.fori_loop(0, 5, lambda _, s: a2c.update(config, s), a2c.init(config, key))

    expected = jax.jit(lambda *args: after_updates(*args))(config, jax.random.key(0))
    with accelerated as chosen:
        found = jax.jit(lambda *args: after_updates(*args))(config, jax.random.key(0))
    assert chosen.call_count > 5
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        (found.learner, found.actor.obs, found.row),
        (expected.learner, expected.actor.obs, expected.row),
    )


@pytest.mark.parametrize("axis", [0, 1])
def test_stacked_leaves_keep_their_bits(axis):
    rng = np.random.default_rng(0)
    tree = {
        "float": np.float32([[np.nan, -0.0, 1e-40], [np.inf, 1, 2]]),
        "int": rng.integers(-(2**31), 2**31, (2, 3), np.int32),
        "flags": [rng.random((2, 3)) < 0.5, rng.random((2, 3, 4)) < 0.5],
        "byte": rng.integers(0, 256, (2, 3), np.uint8),
        "complex": np.complex64(rng.normal(size=(2, 3)) + 1j),
        "alone": np.float32(rng.normal(size=(2, 3, 5))),
        "key": jax.random.split(jax.random.key(0), (2, 3)),
        "keys": jax.random.split(jax.random.key(1), (2, 3)),
    }
    tree = jax.tree.map(jnp.asarray, tree)
    stacked = jax.jit(pytrees.stack_alike, static_argnums=1)(tree, axis)
    # [2, 3] of four types, of complex numbers; [2, 3, 4], [2, 3, 5], two of keys
    assert len(stacked.arrays) == 6
    found = pytrees.unstack(stacked, axis)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, tree)
    bits = jax.tree.map(
        lambda x: np.asarray(x).tobytes(), (pytrees.plain(found), pytrees.plain(tree))
    )
    assert bits[0] == bits[1]


def test_clipping_by_the_norm_of_one_vector():
    config = Config(**SIZES)
    for limit, scale in itertools.product((0.5, np.inf), (0.0, 0.01, 100.0)):
        config = dataclasses.replace(config, max_grad_norm=limit)
        grads = {"a": scale * jnp.arange(3.0), "b": scale * jnp.ones((2, 2))}

        def updates(grads=grads, config=config):
            optimizer = optimizers.make(config)
            return optimizer.update(grads, optimizer.init(grads), grads)[0]

        expected = updates()
        with accelerated:
            np.testing.assert_allclose(optimizers.global_norm(grads), scale * 3.0, rtol=1e-6)
            found = updates()
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), found, expected)


@pytest.mark.parametrize("number", [6, 18, pytest.param(40, marks=pytest.mark.slow)])
def test_no_order_of_summation_opens_impossible_actions(number):
    """As GPUs add up: in a tree, where the distribution function can fall."""
    rng = np.random.default_rng(number)
    logits = np.float32(2 * rng.normal(size=(4000, number)))
    possible = rng.random((4000, number)) < 0.5
    possible[:, number // 2] = True
    masked = jnp.where(possible, logits, -jnp.inf)
    cumsum = lambda x, axis: jax.lax.associative_scan(jnp.add, x, axis=axis % x.ndim)  # noqa: E731
    shares = jnp.exp(masked - masked.max(axis=-1, keepdims=True))
    cdf = np.asarray(cumsum(shares, -1))
    border = cdf / cdf[:, -1:]
    noise = np.concatenate([np.nextafter(border, np.float32(way)) for way in (0, 2)] + [border], 1)
    noise = np.clip(noise, 0, np.nextafter(np.float32(1), np.float32(0)))
    with mock.patch.object(jnp, "cumsum", cumsum):
        actions = Categorical(masked[:, None]).sample(jnp.asarray(noise))
    assert np.take_along_axis(possible, np.asarray(actions), axis=1).all()
