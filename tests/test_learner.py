"""The learner's seams: true successors, any parameter pytree, any source of experience."""

import dataclasses
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from rljax import Config, a2c, learner, networks, optimizers, rollout
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import Discrete, Numbers
from rljax.networks import distributions
from rljax.types import Transition

CONFIG = Config(num_envs=4, num_steps=6, hidden_sizes=(16,), learning_rate=3e-3, ent_coef=0.01)
SPEC = EnvSpec("four numbers", Numbers((4,)), Discrete(2))
NETWORK = networks.make(CONFIG, SPEC)
GRADIENTS = tiny.loss_gradients
SUCCESSORS = jax.jit(learner.successor_values, static_argnums=0)
APPLY = jax.jit(NETWORK.apply)


@pytest.fixture(scope="module")
def state():
    return tiny.init_learner(CONFIG, NETWORK, SPEC, jax.random.key(0))


def random_batch(seed, cut=0.3):
    rng = np.random.default_rng(seed)
    shape = (CONFIG.num_steps, CONFIG.num_envs)
    return Transition(
        obs=rng.normal(size=(*shape, 4)).astype(np.float32),
        action=rng.integers(0, 2, shape, np.int32),
        reward=rng.normal(size=shape).astype(np.float32),
        terminated=rng.random(shape) < cut,
        truncated=rng.random(shape) < cut,
        final_obs=rng.normal(size=(*shape, 4)).astype(np.float32),
    )


def sum_of(obs, carry):
    assert carry == ()
    return jnp.sum(obs, axis=-1)


@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 1.0])
def test_successor_values_are_those_of_the_true_successors(cut):
    """Where the episode goes on, of the next row; where it was cut and in the last row, of
    final_obs. The value here is a plain sum, and rare and frequent truncations are tried."""
    for seed in range(5):
        batch = random_batch(seed, cut)
        values = batch.obs.sum(axis=-1)
        cut_off = batch.truncated & ~batch.terminated
        found = np.asarray(SUCCESSORS(sum_of, values, (batch.final_obs, ()), cut_off))
        for t in range(CONFIG.num_steps):
            for b in range(CONFIG.num_envs):
                own = cut_off[t, b] or t == CONFIG.num_steps - 1
                expected = batch.final_obs[t, b].sum() if own else values[t + 1, b]
                assert found[t, b] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_gradient_is_that_of_the_loss_written_out(state):
    """Against a NumPy evaluation of the whole loss, along random directions of the parameters."""
    batch = random_batch(0)
    grads, *_ = GRADIENTS(CONFIG, NETWORK, state, batch)
    flat, unravel = ravel_pytree(state.params)
    direction = np.random.default_rng(1).normal(size=flat.shape).astype(np.float32)
    constants = advantages_and_targets(state.params, batch)

    def loss(step):
        params = unravel(flat + step * direction)
        dist, values = APPLY(params, batch.obs.reshape(-1, 4))
        logits, values = np.float64(dist.logits), np.float64(values)
        log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        chosen = log_probs[np.arange(len(values)), batch.action.ravel()]
        advantages, targets = constants
        policy = -np.mean(chosen * advantages)
        value = 0.5 * np.mean((targets - values) ** 2)
        entropy = -np.mean((np.exp(log_probs) * log_probs).sum(axis=-1))
        return policy + CONFIG.vf_coef * value - CONFIG.ent_coef * entropy

    eps = 1e-3
    slope = (loss(eps) - loss(-eps)) / (2 * eps)
    assert np.vdot(ravel_pytree(grads)[0], direction) == pytest.approx(slope, rel=1e-2)


def advantages_and_targets(params, batch):
    def value(obs):
        return np.asarray(APPLY(params, obs.reshape(-1, 4))[1]).reshape(batch.reward.shape)

    values, final_values = value(batch.obs), value(batch.final_obs)
    advantages = np.zeros_like(values)
    for b in range(CONFIG.num_envs):
        running = 0.0
        for t in reversed(range(CONFIG.num_steps)):
            done = batch.terminated[t, b] or batch.truncated[t, b]
            last = t == CONFIG.num_steps - 1
            successor = final_values[t, b] if done or last else values[t + 1, b]
            successor *= not batch.terminated[t, b]
            delta = batch.reward[t, b] + CONFIG.gamma * successor - values[t, b]
            running = delta + CONFIG.gamma * CONFIG.gae_lambda * (not done) * running
            advantages[t, b] = running
    return advantages.ravel(), (advantages + values).ravel()


def test_apply_takes_one_raveled_vector(state):
    """As the holder of asynchronous training does; three steps, the same as on the tree."""
    flat, unravel = ravel_pytree(state.params)
    vector = state._replace(params=flat, opt_state=optimizers.make(CONFIG).init(flat))
    tree = state
    for seed in range(3):
        grads, *_ = GRADIENTS(CONFIG, NETWORK, tree, random_batch(seed))
        tree = tiny.apply_gradients(CONFIG, tree, grads)
        vector = tiny.apply_gradients(CONFIG, vector, ravel_pytree(grads)[0])
    assert vector.updates == tree.updates == 3
    np.testing.assert_allclose(vector.params, ravel_pytree(tree.params)[0], rtol=1e-4, atol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        unravel(vector.params),
        tree.params,
    )


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("Pendulum-v1", {"normalize_observations": True}),
        pytest.param(
            *("Breakout-MinAtar", {"shared_torso": True, "hidden_sizes": (4,)}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_acting_recorded_changes_no_gradient(env, settings):
    """Two seeds, under vmap."""
    config = dataclasses.replace(CONFIG, env=env, **settings)

    @jax.jit
    @jax.vmap
    def both(key):
        agent = rollout.make_env_and_network(config)
        state = a2c.init(config, key)
        _, batch = rollout.collect(config, *agent, state.learner, state.actor)
        assert jax.tree.leaves(batch.recorded)
        anew = learner.loss_gradients(
            config, agent[1], state.learner, batch._replace(recorded=None)
        )
        return learner.loss_gradients(config, agent[1], state.learner, batch), anew

    reused, anew = both(jax.random.split(jax.random.key(0), 2))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), reused, anew)


def test_a_host_loop_over_gymnasium_feeds_the_same_learner():
    """Returns rise in 150 updates on gymnasium's CartPole: 3 seeds."""
    config = dataclasses.replace(
        CONFIG, num_envs=8, num_steps=16, optimizer="adam", learning_rate=5e-3, anneal_lr=False
    )
    act = jax.jit(
        lambda params, obs, noise: NETWORK.apply(params, obs, method="actor")[0].sample(noise)
    )
    draw = jax.jit(partial(distributions.noise, SPEC.action_space, shape=(16, config.num_envs)))
    step = jax.jit(
        lambda state, batch: learner.apply_gradients(
            config, state, learner.loss_gradients(config, NETWORK, state, batch)[0]
        )
    )
    for seed in range(3):
        envs = gymnasium.make_vec(
            "CartPole-v1",
            num_envs=config.num_envs,
            vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP},
        )
        key = jax.random.key(seed)
        state = tiny.init_learner(config, NETWORK, SPEC, key)
        obs, _ = envs.reset(seed=seed)
        ends = []
        for _ in range(150):
            rows = []
            for noise in np.asarray(draw(key)):
                action = np.asarray(act(state.params, obs, noise))
                next_obs, reward, terminated, truncated, info = envs.step(action)
                final_obs = next_obs.copy()
                for i in np.nonzero(terminated | truncated)[0]:
                    final_obs[i] = info["final_obs"][i]
                rows.append(
                    Transition(obs, action, np.float32(reward), terminated, truncated, final_obs)
                )
                obs = next_obs
            batch = jax.tree.map(lambda *x: np.stack(x), *rows)
            state = step(state, batch)
            key, _ = jax.random.split(key)
            ends.append((batch.terminated | batch.truncated).mean())
        assert np.mean(ends[-30:]) < 0.5 * np.mean(ends[:30])  # episodes twice as long
