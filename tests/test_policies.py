"""What can be asked of a policy besides an action: its distribution and the value."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny

from rljax import networks, policies, rollout


def made(**settings):
    """(policy, network, learner) of a config."""
    config = dataclasses.replace(tiny.CONFIG, **settings)
    _, network = rollout.make_env_and_network(config)
    learner = tiny.init(config, jax.random.key(0)).learner
    return policies.policy(config, learner), network, learner


@pytest.mark.parametrize("env", ["probes:RewardByAction", "host_probes:RewardByAction"])
def test_probabilities_and_values_are_the_networks(env):
    policy, network, learner = made(env=env)
    obs = np.array([[0.0], [1.0], [-0.5]], np.float32)
    wanted, values = network.apply(learner.params, obs)
    found = policy.distribution(obs)
    shares = np.exp(np.array(wanted.logits, float))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probs, shares, rtol=1e-5)
    np.testing.assert_allclose(policy.value(obs), values, rtol=1e-5)
    one = policy.distribution(obs[1])
    assert one.probs.shape == (2,)
    np.testing.assert_allclose(one.probs, shares[1], rtol=1e-5)
    assert np.shape(policy.value(obs[1])) == ()
    np.testing.assert_allclose(policy.value(obs[1]), values[1], rtol=1e-5)


def test_a_continuous_policy_has_a_mean_and_a_deviation():
    policy, network, learner = made(env="Pendulum-v1", num_envs=2, log_std_init=-0.5)
    obs = np.array([0.6, 0.8, 1.0], np.float32)
    found = policy.distribution(obs)
    wanted, _ = network.apply(learner.params, obs[None])
    np.testing.assert_allclose(found.mean, wanted.mean[0], rtol=1e-5)
    np.testing.assert_allclose(found.log_std, [-0.5])


def test_with_a_core_they_depend_on_what_is_carried():
    policy, network, _ = made(env="probes:RewardByAction", core="gru", core_size=4)
    obs = np.array([0.5], np.float32)
    first = policy.initial_carry()
    later = jax.tree.map(lambda x: x + 1, first)
    assert network.make_core
    assert isinstance(first, networks.Carry)
    assert np.shape(policy.value(obs, first)) == ()
    assert policy.value(obs, first) != policy.value(obs, later)
    probs = [np.array(policy.distribution(obs, carry).probs) for carry in (first, later)]
    assert probs[0].shape == (2,)
    assert (probs[0] != probs[1]).any()
    with pytest.raises(ValueError, match=r"carry = None: the agent has a core"):
        policy.value(obs)


def test_invalid_actions_have_no_probability():
    policy, *_ = made(env="probes:RewardByAction")
    found = policy.distribution(np.zeros(1, np.float32), mask=np.array([True, False]))
    np.testing.assert_allclose(found.probs, [1.0, 0.0])
