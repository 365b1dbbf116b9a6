"""Independent observations in batches: as many as have the variance of a batch's mean."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from rljax import a2c, rollout

BATCH = 80  # steps


def observations(base, shapes, number):
    """How many a batch has, by the steps of A2C after which its policy acts, one of each, and by
    environments, or of replay; {environments: the settings that they change}."""
    early = dataclasses.replace(base, total_timesteps=base.total_timesteps // 10, anneal_lr=False)
    return {
        f"after {x.total_timesteps:,} steps": _of_policy(x, shapes, number) for x in (early, base)
    }


def _of_policy(base, shapes, number):
    policy = jax.jit(a2c.train)(base, jax.random.key(0))[0].learner
    found = {n: _batches(dataclasses.replace(base, **x), policy, number) for n, x in shapes.items()}
    stream = found[1].reshape(-1, found[1].shape[-1])
    mean, scale = stream.mean(axis=0), stream.std(axis=0)
    last = np.random.default_rng(0).integers(0, min(50_000, len(stream)), (number, BATCH))
    found["replay"] = stream[-1 - last]

    def independent(batches):  # the mean of n independent ones has the n-th part of the variance
        means = (batches.mean(axis=1) - mean) / scale
        return 1 / np.mean(means**2)

    return {str(name): independent(batches) for name, batches in found.items()}


def _batches(config, policy, number):
    """Observations [number, BATCH, D] of rollouts, after as many that are not looked at."""
    env, network = rollout.make_env_and_network(config)

    def step(actor, _):
        actor, batch = rollout.collect(config, env, network, policy, actor)
        return actor, batch.obs.reshape(BATCH, -1)

    start = rollout.init(env, network, config.num_envs, jax.random.key(1))
    _, obs = jax.jit(lambda actor: jax.lax.scan(step, actor, length=2 * number))(start)
    return np.asarray(jnp.asarray(obs[number:]), float)
