"""Advantages and targets, against sums written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.returns import gae

NUM_STEPS, NUM_ENVS = 7, 6
jitted_gae = jax.jit(gae)


def experience(seed):
    """Random experience with every pattern of ends, also in the last row."""
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, NUM_STEPS, NUM_ENVS))
    terminated, truncated = rng.random((2, NUM_STEPS, NUM_ENVS)) < 0.25
    terminated[-1, :4] = [True, False, True, False]
    truncated[-1, :4] = [False, True, True, False]
    return rewards, values, next_values, terminated, truncated


def library(experience, gamma, gae_lambda):
    floats = [jnp.asarray(x, jnp.float32) for x in experience[:3]]
    return jitted_gae(*floats, *experience[3:], gamma, gae_lambda)


def advantage_as_a_sum(experience, t, b, gamma, gae_lambda):
    """Equation 16 of arXiv 1506.02438 for one entry: a sum up to the end of the episode."""
    rewards, values, next_values, terminated, truncated = (x[:, b] for x in experience)
    total, weight = 0.0, 1.0
    for k in range(t, NUM_STEPS):
        bootstrap = 0.0 if terminated[k] else gamma * next_values[k]
        total += weight * (rewards[k] + bootstrap - values[k])
        if terminated[k] or truncated[k]:
            break
        weight *= gamma * gae_lambda
    return total


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("gamma", [0.9, 1.0])
def test_gae_is_the_sum_of_errors_up_to_the_end_of_the_episode(seed, gae_lambda, gamma):
    batch = experience(seed)
    expected = np.array(
        [
            [advantage_as_a_sum(batch, t, b, gamma, gae_lambda) for b in range(NUM_ENVS)]
            for t in range(NUM_STEPS)
        ]
    )
    advantages, targets = library(batch, gamma, gae_lambda)
    np.testing.assert_allclose(advantages, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(targets, expected + batch[1], rtol=1e-5, atol=1e-5)


def test_lambda_1_gives_n_step_returns():
    gamma = 0.9
    rewards, values, next_values, terminated, truncated = experience(3)
    next_values[:-1] = values[1:]  # as where the episode goes on
    targets = np.zeros((NUM_STEPS, NUM_ENVS))
    for t, b in np.ndindex(targets.shape):
        ends = (terminated | truncated)[t:, b]
        last = t + int(ends.argmax()) if ends.any() else NUM_STEPS - 1
        steps = np.arange(t, last + 1)
        targets[t, b] = np.sum(gamma ** (steps - t) * rewards[steps, b])
        if not terminated[last, b]:
            targets[t, b] += gamma ** (last + 1 - t) * next_values[last, b]
    batch = (rewards, values, next_values, terminated, truncated)
    _, found = library(batch, gamma, 1.0)
    np.testing.assert_allclose(found, targets, rtol=1e-5, atol=1e-5)


def test_the_value_after_a_termination_is_not_used():
    rewards, values, next_values, terminated, truncated = experience(4)
    others = np.where(terminated, 1e6, next_values)
    found = library((rewards, values, next_values, terminated, truncated), 0.9, 0.95)
    again = library((rewards, values, others, terminated, truncated), 0.9, 0.95)
    jax.tree.map(np.testing.assert_array_equal, found, again)


@pytest.mark.parametrize("shape", [(7,), (7, 1), (1, 6), (6, 7)])
@pytest.mark.parametrize("which", range(5))
def test_an_argument_of_another_shape_is_refused(shape, which):
    args = [np.zeros((NUM_STEPS, NUM_ENVS), np.float32)] * 3
    args += [np.zeros((NUM_STEPS, NUM_ENVS), bool)] * 2
    args[which] = np.zeros(shape, args[which].dtype)
    with pytest.raises(AssertionError):
        gae(*args, 0.9, 0.95)
