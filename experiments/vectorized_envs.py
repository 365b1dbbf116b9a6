"""Four gymnasium CartPoles, each in a process of its own, reset and stepped all at once."""

import numpy as np

from rljax import envs

env = envs.make("gymnasium/CartPole-v1", num_envs=4, vectorization="async")
rng = np.random.default_rng(0)
with env.open() as carts:
    obs, _ = carts.reset(seeds=range(4))
    print("observations", obs.shape)
    for _ in range(100):
        actions = rng.integers(env.spec.action_space.n, size=4)
        step = carts.step(actions)
    print("actions", actions.shape)
    print("then observations", step.obs.shape, "and rewards", step.reward.shape)
