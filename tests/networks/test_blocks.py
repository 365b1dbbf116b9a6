"""The network in blocks of a batch, against the network on the whole of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

from rljax import Config, a2c, networks
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import Box, Discrete, Numbers
from rljax.networks import blocks, layers
from rljax.types import Moments

IMAGES = EnvSpec("images", Numbers((5, 4, 3), 1 / 255, "uint8"), Discrete(3), has_mask=True)
VECTORS = EnvSpec("vectors", Numbers((4,)), Box((2,), (-1.0,) * 2, (1.0,) * 2))


class Own(nn.Module):
    """A user's torso: no layer of the library, and one of its own that returns no array."""

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(50)(Split(name="split")(obs)["obs"].reshape(len(obs), -1))


class Split(nn.Module):
    def __call__(self, obs):
        return {"obs": obs, "name": "a text"}


def batch_of(spec, number, seed=0):
    """(observations, mask or None, moments or None)"""
    rng = np.random.default_rng(seed)
    shape = (number, *spec.obs_shape)
    if spec is VECTORS:
        moments = Moments(*(jnp.float32(rng.uniform(0.5, 2, n)) for n in ((), 4, 4)))
        return jnp.asarray(rng.normal(size=shape), "float32"), None, moments
    mask = rng.random((number, 3)) < 0.5
    mask[:, 1] = True
    return jnp.asarray(rng.integers(0, 256, shape), "uint8"), jnp.asarray(mask), None


@pytest.mark.parametrize("number", [4, 11, 12, 15])
@pytest.mark.parametrize("spec", [IMAGES, VECTORS], ids=lambda spec: spec.name)
def test_blocks_give_what_the_whole_gives(spec, number):
    """Values, distributions and gradients; blocks of 4, which divide some of the numbers."""
    config = Config(hidden_sizes=(6,), shared_torso=spec is VECTORS)
    network = networks.make(config, spec)
    params = networks.init(config, network, spec, jax.random.key(0))
    obs, mask, moments = batch_of(spec, number)

    def loss(params, apply):
        """Depends on all observations at once."""
        distribution, values = apply(params)
        entropy, values = distribution.entropy(), values - jnp.mean(values)
        return jnp.mean(values**3) + jnp.vdot(entropy, values), (distribution, values)

    def whole(params):
        x = obs / np.float32(255)
        if moments is not None:
            x = (obs - moments.mean[None]) / jnp.sqrt(moments.var[None] + 1e-8)
        return network.apply(params, x, *(() if mask is None else (mask,)))

    def in_blocks(params, recorded=None):
        return blocks.apply(network, params, moments, obs, mask, recorded, rows=4)

    def reusing(params):
        inputs = blocks.inputs(network, moments, obs)
        variables = jax.lax.stop_gradient(params)
        recorded = layers.record(network, variables, inputs, mask, method="actor")[1]
        return in_blocks(params, recorded)

    of = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
    expected = of(params, whole)
    for found in of(params, in_blocks), of(params, reusing):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=3e-5), found, expected
        )


@pytest.mark.parametrize("torso", ["auto", Own])
def test_rows_of_a_block_fit_its_bytes(torso, monkeypatch):
    config = Config(hidden_sizes=(20,), network=torso)
    network = networks.make(config, IMAGES)
    params = networks.init(config, network, IMAGES, jax.random.key(0))
    least = 4 * (60 + 2 * (50 if torso is Own else 3 * 2 * 16 + 20))  # the widest alone
    monkeypatch.setattr(blocks, "LARGE", 1000 * least)
    monkeypatch.setattr(blocks, "BLOCK", 16 * least)
    found = blocks.rows(network, params, (1000, 5, 4, 3))
    assert found in (4, 8)  # heads, and what is given on unchanged, count too
    assert blocks.rows(network, params, (250, 5, 4, 3)) is None
    monkeypatch.setattr(blocks, "BLOCK", 1)
    assert blocks.rows(network, params, (1000, 5, 4, 3)) == 1
    monkeypatch.setattr(blocks, "LARGE_FOR_CACHE", 1000 * least)
    monkeypatch.setattr(blocks, "BLOCK_FOR_CACHE", 64 * least)
    assert blocks.rows_in_cache(network, params, (1000, 5, 4, 3)) == 32
    assert blocks.rows_in_cache(network, params, (250, 5, 4, 3)) is None
    monkeypatch.setattr(blocks, "BLOCK_FOR_CACHE", 1)
    assert blocks.rows_in_cache(network, params, (1000, 5, 4, 3)) == blocks.FEWEST_IN_CACHE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "which"),
    [
        ("probes:Picture", "rows"),
        ("probes:Picture", "rows_in_cache"),
        ("probes:Truncating", "rows"),
        ("Pendulum-v1", "rows"),
        ("Pendulum-v1", "rows_in_cache"),
    ],
)
def test_updates_in_blocks_are_the_same(env, which, monkeypatch):
    """Of two seeds: acting, the values of true successors, and the loss. Those that fit a CPU's
    cache reuse what acting recorded."""
    config = dataclasses.replace(
        tiny.CONFIG, env=env, num_envs=6, normalize_observations=env != "probes:Picture"
    )
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.jit(jax.vmap(a2c.init, (None, 0)))(config, keys)

    def after_updates():
        advance = jax.vmap(lambda state: a2c.update(config, state))
        return jax.jit(lambda s: jax.lax.fori_loop(0, 3, lambda _, s: advance(s), s))(state)

    expected = after_updates()
    monkeypatch.setattr(blocks, which, lambda *args: 4)
    found = after_updates()
    np.testing.assert_array_equal(found.actor.obs, expected.actor.obs)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5),
        (found.learner, found.row),
        (expected.learner, expected.row),
    )


def test_no_block_keeps_its_outputs():
    """The backward pass computes them once more."""
    config = Config(hidden_sizes=(2000,))
    network = networks.make(config, IMAGES)
    params = jax.eval_shape(lambda: networks.init(config, network, IMAGES, jax.random.key(0)))
    obs = jax.ShapeDtypeStruct((512, 5, 4, 3), "uint8")

    def residuals(rows):
        """Bytes that the forward pass leaves for the backward pass."""

        def kept(params, obs):
            apply = lambda p: blocks.apply(network, p, None, obs, method="critic", rows=rows)  # noqa: E731
            return jax.vjp(apply, params)[1]

        left = jax.tree.leaves(jax.eval_shape(kept, params, obs))
        return sum(x.size * x.dtype.itemsize for x in left)

    outputs = 512 * 2000 * 4
    assert residuals(None) - residuals(8) > 0.9 * outputs
