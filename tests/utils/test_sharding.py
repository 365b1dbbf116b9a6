"""Seeds that are spread over devices, and environments that are sharded over them."""

import dataclasses
from unittest import mock

import jax
import numpy as np
import probes
import pytest
import tiny
from jax.sharding import Mesh, PartitionSpec

import rljax
from rljax import Config, a2c, evaluation
from rljax.runs import checkpoints
from rljax.utils import seeds, sharding
from rljax.utils.errors import TrainingError

TINY = dict(num_envs=4, num_steps=3, hidden_sizes=(8,), total_timesteps=120)
NORMALIZED = dict(normalize_advantage=True, normalize_observations=True, normalize_rewards=True)
one_device = mock.patch.object(sharding, "devices", return_value=jax.local_devices()[:1])


@pytest.fixture(autouse=True)
def two_devices():
    assert len(sharding.devices()) == 2


def final_states(config, number):
    states = list(a2c.chunks(config, seeds.keys(range(number)), log_interval=4))[-1][0]
    return jax.device_get(states)


def assert_equal(found, expected):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


SEVERAL = {
    "a third, beside a copy of itself": (3, {}),
    "large, one after another": (4, {}),
    "two": (2, {}),
    "everything normalised": (8, dict(env="Pendulum-v1", num_envs=51, **NORMALIZED)),
    "small images": (8, dict(env="Breakout-MinAtar", num_envs=2, hidden_sizes=(16,))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEVERAL)
def test_seeds_give_the_same_bits_on_one_device_as_on_two(name):
    number, settings = SEVERAL[name]
    config = dataclasses.replace(Config(**{**TINY, **settings}), total_timesteps=2000)
    large = 1.0 if name.startswith("large") else seeds.LARGE
    with tiny.optimized(), mock.patch.object(seeds, "LARGE", large):
        found = final_states(config, number)
        with one_device:
            expected = final_states(config, number)
    assert_equal(found, expected)
    heads = found.learner.params["params"]["actor_head"]["kernel"]
    assert len(np.unique(heads, axis=0)) == number


def test_agents_are_trained_in_groups_that_do_not_depend_on_the_devices():
    def on_devices(number, **settings):
        config = Config(env="CartPole-v1", **settings)
        states = jax.eval_shape(a2c.init_seeds, config, seeds.keys(range(number)))
        return [seeds.at_once(config, states, mesh) for mesh in meshes]

    both = np.array(jax.local_devices()[:2])[:, None]
    meshes = [Mesh(x, ("agents", sharding.ENVS)) for x in (both[:1], both)]
    assert on_devices(1) == on_devices(2) == [1, 1]
    assert on_devices(3, num_envs=16) == [2, 2]
    assert on_devices(8, num_envs=16) == [4, 4]
    assert on_devices(64, num_envs=16) == [8, 8]
    assert on_devices(8, num_envs=16, hidden_sizes=(500, 500)) == [1, 1]
    assert on_devices(8, num_envs=512) == [1, 1]


def test_few_seeds_use_few_devices_and_large_runs_all():
    assert sharding.mesh(1).shape == {"agents": 1, "envs": 1}
    assert sharding.mesh(8).shape == {"agents": 2, "envs": 1}
    assert sharding.mesh(1, 2).shape == {"agents": 1, "envs": 2}
    with jax.default_device(jax.local_devices()[1]):
        assert sharding.devices() == [jax.local_devices()[1]]
    config = Config(**TINY)
    states = a2c.init_seeds(config, seeds.keys([0]))
    assert seeds.devices_of_each(config, states) == 1
    with mock.patch.object(seeds, "LARGE", 1.0):
        assert seeds.devices_of_each(config, states) == 2
        assert seeds.devices_of_each(config, a2c.init_seeds(config, seeds.keys([0, 1]))) == 1
        odd = dataclasses.replace(config, num_envs=5)
        assert seeds.devices_of_each(odd, a2c.init_seeds(odd, seeds.keys([0]))) == 1


SETTINGS = {
    "plain": {},
    "normalised": dict(
        **NORMALIZED,
        loss_reduction="sum",
        env_params={"max_steps_in_episode": 2},  # several truncations of each in a rollout
    ),
    "continuous": dict(env="Pendulum-v1", shared_torso=True, ent_coef=0.01),
    "images": dict(env="Breakout-MinAtar"),
    "core": dict(core="gru", core_size=8, core_inputs=("last_action", "last_reward")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_sharded_environments_give_the_same_but_for_rounding(name):
    """After ten updates."""
    config = Config(**{**TINY, **SETTINGS[name]})
    assert config.num_updates == 10
    expected = final_states(config, 1)
    with mock.patch.object(seeds, "LARGE", 1.0):
        found = final_states(config, 1)
    assert found.actor.episodes.episodic_length.shape == (1, 4)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
    assert_equal(found.actor.key, expected.actor.key)


def test_rows_of_all_devices_pass_their_own_gradient():
    """Of any loss of the whole batch, to the bits of the numbers that are gathered."""
    mesh = sharding.mesh(1, 2)
    rng = np.random.default_rng(0)
    values = np.float32(rng.normal(size=(6, 2)))
    actions = rng.integers(-5, 5, 6, np.int32)

    def loss(rows):
        values, actions = rows
        weights = (values - values.mean()) / values.std()
        return (weights[:, 0] * values[:, 1] * actions).sum() ** 2, actions

    def own(rows):
        def of_all(values):
            return loss(sharding.gathered((values, rows[1]), sharding.ENVS))

        (_, actions), gradient = jax.value_and_grad(of_all, has_aux=True)(rows[0])
        return gradient, actions

    rows = PartitionSpec(sharding.ENVS)
    program = sharding.spread(own, mesh, ((rows, rows),), (rows, sharding.WHOLE))
    gradient, gathered = program((values, actions))
    np.testing.assert_array_equal(gathered, actions)
    expected = jax.grad(lambda values: loss((values, actions))[0])(values)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_an_evaluation_is_the_same_on_one_device_as_on_two():
    config, keys = Config(**TINY), seeds.keys(range(3))
    learners = a2c.init_seeds(config, keys).learner
    found = evaluation.evaluate(config, learners, keys, 4, greedy=False)
    assert found.returns.shape == (3, 4)
    with one_device:
        expected = evaluation.evaluate(config, learners, keys, 4, greedy=False)
    assert_equal(found, expected)


@pytest.mark.slow
def test_a_run_is_resumed_on_another_number_of_devices(tmp_path):
    how = dict(env="CartPole-v1", num_seeds=3, seed=4, preset="none", quiet=True, eval_episodes=2)
    how |= dict(TINY, checkpoint_every=48, log_interval=2)

    def interrupt(row):
        return "stop" if row.metrics[0]["updates"] >= 5 else None

    whole = rljax.train("a2c", run_dir=tmp_path / "whole", **how)
    run = rljax.train("a2c", run_dir=tmp_path / "cut", on_log=interrupt, **how)
    assert run.status == "stopped"
    with one_device:
        found = rljax.resume(tmp_path / "cut")
    expected = jax.tree.leaves(whole.state)
    for x, y in zip(jax.tree.leaves(found.state), expected):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_accelerator_writes_over_the_states_before(tmp_path, monkeypatch):
    """Nothing uses them any more; a run that fails keeps its last checkpoint."""
    how = dict(env="CartPole-v1", num_seeds=2, preset="none", quiet=True, eval_every=48, **TINY)
    how |= dict(eval_episodes=2, checkpoint_every=48, log_interval=2)
    expected = rljax.train("a2c", run_dir=tmp_path / "kept", **how)
    monkeypatch.setattr(sharding, "donates", lambda: True)
    seeds._programs.cache_clear()
    seen = []
    found = rljax.train(
        "a2c", run_dir=tmp_path / "over", on_log=lambda row: seen.append(row.states), **how
    )
    assert sharding.is_deleted(seen[0])
    assert not sharding.is_deleted(seen[-1])
    for x, y in zip(jax.tree.leaves(found.state), jax.tree.leaves(expected.state)):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert found.summary["final_return"] == expected.summary["final_return"]

    failing = how | dict(env=probes.CallingBack(calls=150), eval_every=0)  # 24 an update
    with pytest.raises(TrainingError):
        rljax.train("a2c", run_dir=tmp_path / "failed", **failing)
    saved = checkpoints.existing(tmp_path / "failed")
    assert rljax.load(tmp_path / "failed").env_steps == [saved[-1]] * 2
    seeds._programs.cache_clear()
