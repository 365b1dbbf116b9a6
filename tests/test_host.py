"""Environments that Python steps: gymnasium's."""

import gymnasium
import jax
import numpy as np
import pytest
from host_probes import RewardByAction, Walk

from rljax import a2c, envs, evaluate, host, rollout
from rljax.config import Config
from rljax.host import HostEnv
from rljax.types import Box, Discrete


@pytest.mark.parametrize("env", ["gymnasium/CartPole-v1", "host_probes:Walk", Walk, lambda: Walk()])
def test_gymnasiums_environments_are_found(env):
    made = envs.make(env)
    assert isinstance(made, HostEnv)
    assert made.spec.action_space == Discrete(2)


def test_bare_ids_are_gymnaxs_where_it_has_them():
    assert isinstance(envs.make("CartPole-v1"), envs.Env)
    gymnasium.register("OnlyHere-v0", entry_point="host_probes:Walk")
    try:
        assert isinstance(envs.make("OnlyHere-v0"), HostEnv)
        with pytest.raises(ValueError, match="unknown environment 'OnlyHere-v0'"):
            envs.make("gymnax/OnlyHere-v0")
    finally:
        del gymnasium.registry["OnlyHere-v0"]


def test_spaces_become_a_spec():
    spec = envs.make("gymnasium/Pendulum-v1").spec
    assert spec.obs_shape == (3,)
    assert spec.action_space == Box((1,), (-2.0,), (2.0,))


def test_keyword_arguments_reach_the_environment():
    spec = envs.make("gymnasium/CartPole-v1", (("sutton_barto_reward", True),)).spec
    assert spec.name == "gymnasium/CartPole-v1"
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        envs.make("gymnasium/CartPole-v1", (("colour", 3),))


class OtherObservations(RewardByAction):
    observation_space = gymnasium.spaces.Discrete(3)


class OtherActions(RewardByAction):
    action_space = gymnasium.spaces.MultiBinary(3)


class ShiftedActions(RewardByAction):
    action_space = gymnasium.spaces.Discrete(2, start=1)


@pytest.mark.parametrize(
    ("env", "params", "error", "message"),
    [
        ("gymnasium/CartPol-v1", (), ValueError, "unknown environment 'CartPol-v1': did you mean"),
        (Walk(), (), TypeError, "give its class or a function, to make several"),
        (Walk, (("x", 1),), ValueError, "gymnasium's environments have none"),
        (OtherObservations, (), ValueError, r"unsupported observation space Discrete\(3\)"),
        (OtherActions, (), ValueError, r"unsupported action space MultiBinary\(3\)"),
        (ShiftedActions, (), ValueError, "unsupported action space Discrete"),
    ],
)
def test_what_is_refused(env, params, error, message):
    with pytest.raises(error, match=message):
        envs.make(env, (), params)


def test_a2c_says_that_it_takes_gymnaxs():
    with pytest.raises(ValueError, match="A2C takes gymnax's environments, A3C both kinds"):
        a2c.init(Config(env="host_probes:Walk"), jax.random.key(0))


def test_successors_are_those_from_before_the_reset():
    running = envs.make(Walk).open(2)
    obs = running.reset([0, 1])
    assert obs.dtype == np.float32
    assert obs.tolist() == [[0], [0]]
    steps = [running.step(np.zeros(2, np.int32)) for _ in range(4)]
    running.close()
    assert [s.final_obs[0].tolist() for s in steps] == [[1], [2], [3], [1]]
    assert [s.obs[1].tolist() for s in steps] == [[1], [2], [0], [1]]
    assert [s.truncated.tolist() for s in steps] == [[i == 2] * 2 for i in range(4)]
    assert not any(s.terminated.any() for s in steps)
    assert {s.reward.dtype for s in steps} == {np.dtype("float32")}


def test_the_same_seeds_give_the_same_stream():
    def stream(seeds):
        running = envs.make("gymnasium/CartPole-v1").open(2)
        seen = [running.reset(seeds)]
        seen += [running.step(np.array([i % 2, 1])).obs for i in range(60)]
        running.close()
        return np.array(seen)

    one = stream([3, 4])
    np.testing.assert_array_equal(one, stream([3, 4]))
    assert not np.array_equal(one[:, 0], stream([5, 4])[:, 0])
    assert not np.array_equal(one[:, 0], one[:, 1])


def test_continuous_actions_have_the_shape_of_their_space():
    running = envs.make("gymnasium/Pendulum-v1").open(3)
    running.reset([0, 1, 2])
    step = running.step(np.zeros((3, 1), np.float32))
    running.close()
    assert step.obs.shape == step.final_obs.shape == (3, 3)
    assert step.reward.shape == (3,)


def test_seeds_are_of_their_key_and_apart():
    first, again, other = (host.seeds(jax.random.key(k), 100) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert len({*first.tolist(), *other.tolist()}) == 200
    assert first.max() < 2**31


def test_a_loop_gives_a_time_major_batch():
    running = envs.make(Walk).open(2)
    obs = running.reset([0, 1])
    noise = np.arange(10, dtype=np.float32).reshape(5, 2)
    obs, batch = rollout.loop(lambda obs, noise: (noise, np.int32(noise)), running.step, obs, noise)
    running.close()
    np.testing.assert_array_equal(batch.action, noise)
    assert batch.obs[:, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert batch.final_obs[:, 0, 0].tolist() == [1, 2, 3, 1, 2]
    assert batch.truncated[:, 1].tolist() == [False, False, True, False, False]
    assert batch.reward.shape == (5, 2)
    assert obs[:, 0].tolist() == [2, 2]


@pytest.mark.parametrize("greedy", [True, False])
def test_evaluation_plays_whole_episodes(greedy):
    config = Config(env="host_probes:Walk", hidden_sizes=(4,))
    env, network = rollout.make_agent(config)
    from rljax import learner

    keys = jax.random.split(jax.random.key(0), 2)
    learners = jax.vmap(lambda key: learner.init(config, network, env.spec, key))(keys)
    played = evaluate.evaluate(config, learners, keys, 4, greedy)
    assert played.returns.tolist() == [[3.0] * 4] * 2
    assert played.lengths.tolist() == [[3] * 4] * 2
    assert played.finished.all()
