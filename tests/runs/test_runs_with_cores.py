"""Runs of agents with a recurrent core: resumed, swept, and on both kinds of environment."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from small_runs import results, train, train_half

import rljax
from rljax import Config, a2c, evaluation, networks, rollout, sweep
from rljax.envs import host_envs
from rljax.loggers import tables
from rljax.networks import distributions
from rljax.runs import checkpoints
from rljax.utils import seeds

pytestmark = pytest.mark.usefixtures("undrawn")

BOTH = ("last_action", "last_reward")
CORE = dict(env="probes:Truncating", core="gru", core_size=4, core_inputs=BOTH)
"""Episodes of 5 steps in rollouts of 4: most rollouts begin within one."""
COUNTER = Config(
    env="probes:Counter",
    total_timesteps=3 * 7 * 30,
    num_envs=3,
    num_steps=7,
    hidden_sizes=(8,),
    learning_rate=0.05,
    core_size=4,
)


def carried(state):
    """All that is carried, of a saved state."""
    return jax.tree.leaves(state[("actor" if "actor" in state else "actors")]["carry"])


# Resuming


@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_bits(tmp_path):
    train(tmp_path / "undisturbed", **CORE)
    run_dir = train_half(tmp_path / "stopped", **CORE)
    assert all(np.any(x != 0) for x in carried(rljax.load(run_dir).state))
    rljax.resume(run_dir, quiet=True)
    assert results(run_dir) == results(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a3c_in_lockstep_continues_to_the_same_bits(tmp_path):
    told = dict(num_steps=4, num_workers=2, hidden_sizes=(8,), preset="none", learning_rate=0.01)
    told |= dict(total_timesteps=400, eval_episodes=0, checkpoint_every=88, keep_checkpoints=9)
    whole = rljax.train("a3c", **told, **CORE, lockstep=True, quiet=True, run_dir=tmp_path / "run")
    run_dir = shutil.copytree(whole.run_dir, tmp_path / "stopped")
    for steps in checkpoints.existing(run_dir):
        if steps > 176:
            shutil.rmtree(checkpoints.folder(run_dir, steps))
    (run_dir / "summary.json").unlink()
    assert all(np.any(x != 0) for x in carried(rljax.load(run_dir).state))
    run = rljax.resume(run_dir, quiet=True)
    jax.tree.map(np.testing.assert_array_equal, run.state, whole.state)
    rows = [run.metrics.drop(columns=["wall_seconds", "steps_per_second"]) for run in (run, whole)]
    assert rows[0].equals(rows[1])


@pytest.mark.slow
def test_a_policy_of_another_size_is_refused():
    run = train(**CORE, total_timesteps=64, eval_every=0)
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, core_size=5))
    for asked in (other.policy, other.evaluate):
        with pytest.raises(ValueError, match=r"the saved params/\S*actor_core\S* is float32"):
            asked()


# Sweeps


@pytest.mark.slow
def test_a_core_and_its_inputs_are_axes():
    """Each trial is the run of its settings."""
    config = dataclasses.replace(tiny.CONFIG, env="probes:Truncating", total_timesteps=160)
    axes = {"core": ["gru"], "core_size": [4], "core_inputs": [(), BOTH]}
    table = sweep.run(config, axes, [3], eval_episodes=0)
    assert table.groupby("trial")["core_inputs"].first().tolist() == ["none", "+".join(BOTH)]
    for trial, inputs in enumerate(axes["core_inputs"]):
        own = dataclasses.replace(config, core="gru", core_size=4, core_inputs=inputs)
        _, metrics = tiny.train(own, jax.random.key(3))
        for name, expected in tables.means(metrics).items():
            found = table[table["trial"] == trial][name]
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


# Environments that Python steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(dict(core="none"), marks=pytest.mark.slow),
        dict(core="lstm", core_inputs=BOTH),
        pytest.param(
            dict(core="gru", core_inputs=BOTH, shared_torso=True, normalize_observations=True),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["none", "lstm", "shared gru"],
)
def test_training_is_the_same_on_both_kinds_of_environment(settings, monkeypatch):
    """With the same noise for each rollout. Both draw it from keys of their own."""

    def noise(space, key, shape):
        return (0.5 + 0.5 * jnp.sin(7.0 * jnp.arange(np.prod(shape)))).reshape(shape)

    monkeypatch.setattr(distributions, "noise", noise)
    rng = np.random.default_rng(0)
    config = dataclasses.replace(COUNTER, **settings)
    shapes = jax.eval_shape(a2c.init, config, jax.random.key(0)).learner.params
    params = jax.tree.map(lambda x: rng.normal(size=(1, *x.shape)).astype(np.float32), shapes)
    (state, metrics), (other, told) = (
        trained(dataclasses.replace(config, env=f"{module}:Counter"), params)
        for module in ("probes", "host_probes")
    )
    found = [jax.tree.leaves(x) for x in (state.learner.params, other.learner.params, params)]
    for here, there, _ in zip(*found):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)
    assert max(np.abs(here - before).max() for here, _, before in zip(*found)) > 0.1
    np.testing.assert_allclose(metrics.episodic_return, told.episodic_return, rtol=1e-5)
    np.testing.assert_allclose(metrics.losses["entropy"], told.losses["entropy"], rtol=1e-3)


def trained(config, params):
    """(states, last metrics) after training from these parameters [1, ...], with which actions
    depend on what is carried, as fresh ones hardly do."""
    states = a2c.init_seeds(config, seeds.keys([0]))
    states = states._replace(learner=states.learner._replace(params=params))
    *_, ended = a2c.chunks(config, None, states)
    return ended


@pytest.mark.parametrize("greedy", [True, False])
def test_a_batch_of_observations_is_each_of_them(greedy):
    """On environments that Python steps, each with its carry, reward and key."""
    config = dataclasses.replace(COUNTER, env="host_probes:Walk", core="lstm", core_inputs=BOTH)
    policy = evaluation.policy(config, tiny.init(config, jax.random.key(0)).learner, greedy)
    rng = np.random.default_rng(0)
    obs, reward = rng.normal(size=(3, 1)).astype(np.float32), np.float32([1, -1, 0])
    carry = policy.initial_carry(3)
    carry = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), carry)
    key = jax.random.key(1)
    actions, after = policy(obs, key, carry, reward=reward)
    assert actions.shape == (3,)
    assert [x.shape for x in jax.tree.leaves(after)] == [x.shape for x in jax.tree.leaves(carry)]
    for i, own in enumerate(jax.random.split(key, 3)):
        row = jax.tree.map(lambda x, i=i: x[i : i + 1], carry)
        action, following = policy(obs[i], own, row, reward=reward[i])
        assert action == actions[i]
        expected = jax.tree.map(lambda x, i=i: x[i : i + 1], after)
        jax.tree.map(np.testing.assert_array_equal, following, expected)
    firsts = [np.asarray(x) for x in jax.tree.leaves(after.cores)]
    assert all(np.abs(x[0] - x[1]).max() > 1e-3 for x in firsts)


# The same bits


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_actings_own_step_replays_a_rollout_to_the_bit(core):
    """From the rollout and what was carried to its first step; with a reset one step off it does
    not."""
    config = dataclasses.replace(COUNTER, env="host_probes:Counter", core=core, core_inputs=BOTH)
    env, network = rollout.make_env_and_network(config)
    state = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    shape = 40, config.num_envs
    noise = distributions.noise(env.spec.action_space, jax.random.key(1), shape)
    first = networks.initial_carry(network, config.num_envs)

    @jax.jit
    def step(t, obs, mask, before):
        return rollout.act(network, state, obs, mask, noise, t, first, before)[:2]

    seen = []

    def act(*given):
        seen.append(step(*given))
        actions, carry = seen[-1]
        return rollout.on_host(env, actions), carry

    with env.open(host_envs.seeds(jax.random.key(2), config.num_envs)) as running:
        begun = running.reset(host_envs.seeds(jax.random.key(2), config.num_envs))
        _, _, batch = rollout.loop(act, running.step, *begun, shape[0], first)
    done = batch.terminated | batch.truncated
    assert done.sum() > 20
    assert len(set(done.sum(axis=1))) > 1  # they end at different times

    def replayed(done):
        carry, reward = first, np.concatenate([0 * batch.reward[:1], batch.reward])
        done = np.concatenate([np.zeros_like(done[:1]), done])
        for t in range(shape[0]):
            result = step(t, batch.obs[t], batch.mask[t], (carry, reward[t], done[t]))
            (action, *_), carry = result
            same = map(np.array_equal, jax.tree.leaves(result), jax.tree.leaves(seen[t]))
            yield np.array_equal(action, batch.action[t]) and all(same)

    assert all(replayed(done))
    assert not all(replayed(np.roll(done, 1, axis=0)))
    assert not all(replayed(np.roll(done, -1, axis=0)))
