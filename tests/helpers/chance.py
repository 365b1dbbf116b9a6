"""The random part of single steps of environments in JAX, which rollouts draw all at once."""

import jax


def of_one(env, key, state):
    """For one environment."""
    states = jax.tree.map(lambda x: jax.numpy.asarray(x)[None], state)
    _, randomness = env.draw(key, states, (1, 1))
    return jax.tree.map(lambda x: x[0, 0], randomness)


def of_all(env, key, states, num_envs):
    """For a batch of environments; where resets are cached, those of before are used again."""
    _, randomness = env.draw(key, states, (1, num_envs))
    return jax.tree.map(lambda x: x[0], randomness)
