"""The optimisers, step by step against the published formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax.types  # noqa: F401  (registers Config as a pytree)
from rljax import optimizers
from rljax.config import Config

LEARNING_RATE, DECAY, EPS = 0.01, 0.9, 0.1  # an epsilon that shows where it stands


def steps_of(config, gradients):
    """What the optimiser adds to the parameters for each gradient in turn."""

    @jax.jit
    def run(config, gradients):
        optimizer = optimizers.make(config)
        state = optimizer.init(gradients[0])
        steps = []
        for gradient in gradients:
            step, state = optimizer.update(gradient, state)
            steps.append(step)
        return steps

    return run(config, gradients)


def rmsprop(start, step):
    def run(gradients):
        n = np.full_like(gradients[0], start)
        for g in gradients:
            n = DECAY * n + (1 - DECAY) * g**2
            yield -LEARNING_RATE * step(g, n)

    return run


def adam(gradients, beta1=0.9, beta2=0.999):
    """arXiv 1412.6980, algorithm 1."""
    m = v = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        yield -LEARNING_RATE * m_hat / (np.sqrt(v_hat) + EPS)


FORMULAS = {
    "rmsprop_tf": rmsprop(start=1.0, step=lambda g, n: g / np.sqrt(n + EPS)),
    "rmsprop_torch": rmsprop(start=0.0, step=lambda g, n: g / (np.sqrt(n) + EPS)),
    "rmsprop_a3c": rmsprop(start=0.0, step=lambda g, n: g / np.sqrt(n + EPS)),
    "adam": adam,
}


@pytest.mark.parametrize("optimizer", FORMULAS)
def test_five_steps_are_those_of_the_formula(optimizer):
    gradients = np.random.default_rng(0).normal(size=(5, 4))
    config = Config(
        optimizer=optimizer,
        learning_rate=LEARNING_RATE,
        anneal_lr=False,
        rmsprop_decay=DECAY,
        optimizer_eps=EPS,
        max_grad_norm=float("inf"),
    )
    found = steps_of(config, [jnp.asarray(g, jnp.float32) for g in gradients])
    np.testing.assert_allclose(found, list(FORMULAS[optimizer](gradients)), rtol=2e-5)


def test_the_learning_rate_falls_in_a_straight_line_to_0():
    config = Config(learning_rate=0.5, num_envs=4, num_steps=5, total_timesteps=160)
    assert config.num_updates == 8
    assert optimizers.learning_rate(config, jnp.int32(0)) == 0.5
    assert optimizers.learning_rate(config, jnp.int32(4)) == 0.25
    assert optimizers.learning_rate(config, jnp.int32(7)) == 0.0625
    assert optimizers.learning_rate(config, jnp.int32(8)) == 0


def test_annealing_scales_the_steps():
    settings = dict(num_envs=1, num_steps=1, total_timesteps=4)
    gradients = [jnp.array([0.3, -0.2])] * 4
    constant = steps_of(Config(**settings, anneal_lr=False), gradients)
    annealed = steps_of(Config(**settings, anneal_lr=True), gradients)
    factors = np.array(annealed) / np.array(constant)
    np.testing.assert_allclose(factors, np.repeat([[1], [0.75], [0.5], [0.25]], 2, axis=1), 1e-6)


def test_clipping_scales_the_whole_gradient_by_one_factor():
    gradient = {"kernel": jnp.array([[3.0, 0.0], [0.0, 0.1]]), "bias": jnp.array([-4.0, 0.2])}
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradient.values()))
    [whole] = steps_of(linear(max_grad_norm=float("inf")), [gradient])
    [clipped] = steps_of(linear(max_grad_norm=0.5), [gradient])
    [loose] = steps_of(linear(max_grad_norm=norm + 0.1), [gradient])
    for name, g in gradient.items():
        np.testing.assert_allclose(whole[name], -g, rtol=1e-5)
        np.testing.assert_allclose(clipped[name], -g * 0.5 / norm, rtol=1e-5)
        np.testing.assert_array_equal(loose[name], whole[name])


def linear(**settings):
    """A config whose step is minus the clipped gradient: the statistics stay at 1."""
    settings |= dict(optimizer="rmsprop_tf", rmsprop_decay=1.0, optimizer_eps=1e-9)
    return Config(learning_rate=1.0, anneal_lr=False, **settings)
