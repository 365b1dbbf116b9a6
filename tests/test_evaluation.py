"""Evaluation: full episodes, all of them, and nothing of training changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import tiny
from gymnax.environments import spaces

from rljax import a2c, evaluation
from rljax.runs.best import updated

SMALL = tiny.CONFIG


class Lottery(probes.Probe):
    """Episodes of 1 step, or of 21, by a coin thrown at the start; reward 1 a step."""

    def reset_env(self, key, params):
        mark = 20.0 * jax.random.bernoulli(key)
        return mark[None], probes.State(time=jnp.int32(0), mark=mark)

    def rule(self, state, action):
        return 1.0, state.mark - 1.0, state.mark <= 0.0


class Endless(probes.Probe):
    """Never ends; pays the action."""

    @property
    def default_params(self):
        return probes.Params(max_steps_in_episode=1_000_000)

    def rule(self, state, action):
        return action, 0.0, False


def states_of(config, seeds=2):
    return tiny.init_seeds(config, jax.random.split(jax.random.key(0), seeds))


@pytest.mark.parametrize("env", ["probes:RewardByAction", "host_probes:RewardByAction"])
def test_only_a_greedy_policy_needs_no_key(env):
    config = dataclasses.replace(SMALL, env=env)
    learner = tiny.init(config, jax.random.key(0)).learner
    obs = np.zeros((3, 1), np.float32)
    greedy, sampling = (evaluation.policy(config, learner, greedy) for greedy in (True, False))
    for one in (obs, obs[0]):
        np.testing.assert_array_equal(greedy(one), greedy(one, jax.random.key(0)))
    with pytest.raises(ValueError, match="only a greedy policy needs no key"):
        sampling(obs)


def test_no_bias_toward_short_episodes():
    """Half of all episodes are long. Counting the first to end would find next to none."""
    config = dataclasses.replace(SMALL, env=Lottery())
    learners = states_of(config).learner
    keys = jax.random.split(jax.random.key(1), 2)
    played = evaluation.evaluate(config, learners, keys, 400, False)
    assert played.returns.shape == (2, 400)
    np.testing.assert_array_equal(np.unique(played.returns), [1.0, 21.0])
    np.testing.assert_array_equal(played.returns, played.lengths)
    assert np.all(played.finished)
    standard_error = 10 / np.sqrt(800)
    assert abs(np.mean(played.returns) - 11) < 4 * standard_error


def test_an_endless_episode_is_ended():
    config = dataclasses.replace(SMALL, env=Endless())
    learners, keys = states_of(config).learner, jax.random.split(jax.random.key(1), 2)
    told = []
    played = evaluation.evaluate(
        config, learners, keys, 3, False, max_steps=50, watch=lambda *now: told.append(now)
    )
    assert told == [(0, 6, 0), (0, 6, 300)]
    assert not np.any(played.finished)
    np.testing.assert_array_equal(played.lengths, 50)


def test_greedy_and_sampled():
    config = SMALL
    learners = states_of(config).learner
    keys = jax.random.split(jax.random.key(1), 2)
    greedy = evaluation.evaluate(config, learners, keys, 50, True)
    sampled = evaluation.evaluate(config, learners, keys, 50, False)
    assert np.all(np.std(greedy.returns, axis=1) == 0)
    assert np.all(np.std(sampled.returns, axis=1) > 0.5)


def test_evaluation_changes_nothing_in_training():
    config = SMALL
    keys = jax.random.split(jax.random.key(0), 2)
    *_, (undisturbed, _) = a2c.chunks(config, keys)
    for state, metrics in a2c.chunks(config, keys):
        eval_keys = evaluation.evaluation_keys(keys, int(metrics.updates[0]))
        evaluation.evaluate(config, state.learner, eval_keys, 5, False)
    for x, y in zip(jax.tree.leaves(undisturbed.learner), jax.tree.leaves(state.learner)):
        np.testing.assert_array_equal(x, y)


def test_evaluation_keys_are_none_of_training():
    keys = jax.random.split(jax.random.key(0), 3)
    apart = evaluation.evaluation_keys(keys, 7)
    children = jax.vmap(lambda key: jax.random.split(key, 64))(keys).ravel()
    seen = {tuple(x) for x in np.asarray(jax.random.key_data(children))}
    seen |= {tuple(x) for x in np.asarray(jax.random.key_data(keys))}
    found = [tuple(x) for x in np.asarray(jax.random.key_data(apart))]
    assert len(set(found)) == 3
    assert not seen & set(found)


@pytest.mark.parametrize("action_bounds", ["clip", "tanh"])
def test_policy_is_a_plain_call(action_bounds):
    """One observation or a batch; actions as the environment takes them."""

    class Wide(probes.Target):
        def action_space(self, params):
            return spaces.Box(-2.0, 2.0, (2, 1))

        def rule(self, state, action):
            return action[0, 0], 0.0, True

    config = dataclasses.replace(SMALL, env=Wide(), action_bounds=action_bounds)
    learner = tiny.init(config, jax.random.key(0)).learner
    act = evaluation.policy(config, learner)
    one = act(np.zeros(1), jax.random.key(0))
    many = act(np.zeros((5, 1)), jax.random.key(0))
    assert one.shape == (2, 1)
    assert many.shape == (5, 2, 1)
    assert np.all(np.abs(many) <= 2.0)
    assert len(np.unique(many)) > 3
    greedy = evaluation.policy(config, learner, greedy=True)
    np.testing.assert_allclose(greedy(np.zeros(1), jax.random.key(0)), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("returns", "chosen"),
    [
        ([100, np.nan], 0),
        ([np.nan, 100], 1),
        ([np.nan, np.nan], 1),
        ([1, 2], 1),
        ([2, 1], 0),
        ([2, 2], 0),
        ([-np.inf, np.nan], 0),
        ([np.nan, -np.inf], 1),
    ],
)
def test_the_best_is_never_one_without_a_return(returns, chosen):
    states = states_of(SMALL)
    found = None
    for i, value in enumerate(returns):
        learners = states.learner._replace(updates=np.full(2, i))
        found = updated(found, learners, np.arange(2), np.array([value, i]), np.full(2, 16 * i))
    assert found.learner.updates.tolist() == [chosen, 1]
    assert found.env_steps.tolist() == [16 * chosen, 16]
    np.testing.assert_array_equal(found.returns, [returns[chosen], 1])
