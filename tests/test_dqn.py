"""DQN: what it learns, what of it is exact, and what it refuses."""

import dataclasses
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

pytest.importorskip("flashbax")

import rljax
from rljax import DQNConfig, dqn, evaluation, losses, networks, presets, sweep
from rljax.cli import training
from rljax.envs import spaces
from rljax.envs.interface import EnvSpec
from rljax.networks.distributions import Categorical
from rljax.rollout import make_env_and_network
from rljax.runs import checkpoints, settings
from rljax.utils import pytrees, seeds

SMALL = dataclasses.replace(
    presets.base("dqn"),
    env="probes:RewardByAction",
    total_timesteps=640,
    num_envs=4,
    num_steps=4,
    learning_rate=1e-2,
    gamma=0.9,
    hidden_sizes=(16,),
)
OPTIONS = DQNConfig(
    buffer_size=256, replay_batch_size=16, learning_starts=64, gradient_steps=2, target_interval=32
)
FLAGS = dict(
    total_timesteps=640, num_envs=4, num_steps=4, hidden_sizes=16, learning_rate=0.01, num_seeds=2
) | dataclasses.asdict(OPTIONS)
KEYS = jax.random.split(jax.random.key(0), 2)
INIT, UPDATE = jax.jit(dqn.init), jax.jit(dqn.update)
TRAIN = jax.jit(dqn.train)


def q_values(config, state, observations):
    _, network = make_env_and_network(config)
    obs = np.float32(observations)[:, None]
    return np.asarray(network.apply(state.learner.params, obs, method="q_values"))


def reference(q, next_q, next_target_q, actions, rewards, terminated, gamma):
    """Term by term."""
    total, gradient = 0.0, np.zeros_like(q)
    for i, action in enumerate(actions):
        best = max(range(q.shape[1]), key=lambda a, i=i: next_q[i, a])
        target = rewards[i] + (0.0 if terminated[i] else gamma * next_target_q[i, best])
        error = q[i, action] - target
        total += 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
        gradient[i, action] = min(max(error, -1.0), 1.0) / len(actions)
    return total / len(actions), gradient


def test_the_loss_and_its_gradient():
    rng = np.random.default_rng(0)
    q, next_q, next_target_q = rng.normal(size=(3, 32, 3)).astype(np.float32)
    actions, terminated = rng.integers(3, size=32), rng.random(32) < 0.3
    rewards = 2 * rng.normal(size=32).astype(np.float32)
    rows = (actions, rewards, terminated, 0.9)
    loss = jax.value_and_grad(losses.double_dqn, argnums=(0, 1, 2), has_aux=True)
    (value, metrics), (gradient, *others) = loss(q, next_q, next_target_q, *rows)
    wanted, wanted_gradient = reference(q, next_q, next_target_q, *rows)
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, atol=1e-6)
    assert not np.any(others)
    np.testing.assert_allclose(metrics["q_mean"], q[np.arange(32), actions].mean(), rtol=1e-5)


def test_epsilon():
    options = dataclasses.replace(OPTIONS, exploration_fraction=0.5, exploration_final=0.2)
    found = dqn.epsilon(SMALL, options, jnp.arange(0, 41, 4))  # 40 updates; 4 before learning
    wanted = [1, 0.84, 0.68, 0.52, 0.36, 0.2, *[0.2] * 5]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert dqn.epsilon(SMALL, options, 3) == 1.0
    greedy = Categorical(jnp.array([[-jnp.inf, 0.0, -jnp.inf, -jnp.inf]]))
    found = dqn.epsilon_greedy(jnp.float32(0.2), greedy).probs
    np.testing.assert_allclose(found, [[0.05, 0.85, 0.05, 0.05]], rtol=1e-5)
    assert dqn.epsilon_greedy(jnp.float32(0.0), greedy).sample(jnp.array([0.999])) == 1


def test_an_update():
    """What is in the buffer; nothing is learnt before `learning_starts`; the target's copies."""
    config = dataclasses.replace(SMALL, env="probes:Scripted")
    state = fresh = INIT(config, OPTIONS, KEYS[0])
    changed, copied = [], []
    for _ in range(8):
        before, state = state, UPDATE(config, OPTIONS, state)
        changed.append(differs(state.learner.params, before.learner.params))
        copied.append(not differs(state.learner.params, state.target_params))
    assert state.learner.updates == 8
    assert changed == [False] * 3 + [True] * 5  # 64 steps are 4 updates
    assert copied == [True] * 3 + [True, False, True, False, True]  # 32 steps are 2 updates
    assert differs(state.target_params, fresh.learner.params)
    assert "critic_head" not in state.learner.params["params"]

    kept = pytrees.unstack(jax.tree.map(lambda x: x[0], state.buffer.experience), axis=1)
    number = 8 * config.batch_size
    assert state.buffer.current_index == number
    obs, final = np.asarray(kept.obs)[:number, 0], np.asarray(kept.final_obs)[:number, 0]
    np.testing.assert_array_equal(final, obs + 1)  # also where the episode ended
    np.testing.assert_array_equal(kept.reward[:number], obs)
    np.testing.assert_array_equal(kept.terminated[:number], obs == 2)
    assert set(np.asarray(kept.action)[:number].tolist()) == {0, 1}
    np.testing.assert_array_equal(obs.reshape(8, 4, 4)[0, :, 0], [0, 1, 2, 0])


def differs(tree, other):
    return any(np.any(np.asarray(x) != y) for x, y in zip(*map(jax.tree.leaves, (tree, other))))


def test_states_resume_to_the_bit(tmp_path, monkeypatch):
    """A state is whole, and the length of a chunk changes nothing."""
    monkeypatch.setattr(seeds, "CHUNK_SECONDS", 1e-9)
    chunks = dqn.chunks(SMALL, OPTIONS, KEYS)
    state = next(state for state, metrics in chunks if metrics.updates[0] == 21)
    checkpoints.save(tmp_path / "21", {"state": state}, {})
    *_, (whole, metrics) = chunks
    _, trees = checkpoints.load(tmp_path / "21")
    like = jax.eval_shape(dqn.init_seeds, SMALL, OPTIONS, KEYS)
    restored = checkpoints.restore(trees["state"], like)
    monkeypatch.setattr(seeds, "CHUNK_SECONDS", 100.0)
    *_, (continued, continued_metrics) = dqn.chunks(SMALL, OPTIONS, KEYS, restored)
    jax.tree.map(assert_same_bits, whole, continued)
    jax.tree.map(assert_same_bits, metrics, continued_metrics)
    assert np.all(metrics.episodic_return > 0.5)


def assert_same_bits(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_a_run_is_resumed_and_evaluated(tmp_path, undrawn):
    """Samples of its policy are its mode; its value is that of the best action."""
    how = FLAGS | dict(env="probes:RewardByAction", hidden_sizes=(16,), quiet=True)
    how |= dict(num_seeds=1, eval_episodes=4)
    stop = lambda row: "stop" if row.metrics[0]["env_steps"] >= 160 else None  # noqa: E731
    first = rljax.train("dqn", **how, run_dir=tmp_path / "run", on_log=stop)
    assert first.status == "stopped"
    run = rljax.resume(tmp_path / "run")
    assert (run.status, run.env_steps) == ("completed", [640])
    again = rljax.train("dqn", **how)
    jax.tree.map(assert_same_bits, run.learners().params, again.learners().params)
    assert run.summary["final_return"]["iqm"] == 1.0
    assert run.summary["replay_buffer_bytes"] == 256 * (2 * 4 + 12) + 5
    assert {"loss", "td_error", "q_mean", "epsilon"} <= set(run.metrics)
    policy = rljax.load(tmp_path / "run").policy(seed=0)
    assert [int(policy(np.zeros(1), key)) for key in jax.random.split(KEYS[0], 8)] == [1] * 8
    assert 0.5 < policy.value(np.zeros(1)) < 1.1


@pytest.mark.slow
def test_a_sweep_of_both_configs_is_one_program(caplog):
    axes = {"learning_rate": [0.0, 1e-2], "exploration_fraction": [0.1, 0.9]}
    base = dataclasses.replace(SMALL, total_timesteps=320)
    how = dict(algorithm="dqn", own=OPTIONS, eval_episodes=2, max_parallel=8)
    jax.clear_caches()
    with caplog.at_level("WARNING"), jax.log_compiles():
        table = sweep.run(base, axes, [0, 1], **how)
    programs = [r for r in caplog.messages if r.startswith("Compiling") and "advance" in r]
    assert len(programs) == 2  # trains, and evaluates
    epsilons = table.groupby("exploration_fraction")["epsilon"].mean()
    assert epsilons[0.1] < epsilons[0.9] - 0.1
    losses_of = table.groupby("learning_rate")["loss"].last()
    assert losses_of[1e-2] < 0.7 * losses_of[0.0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (dict(env="Pendulum-v1"), "continuous.*a2c and a3c can"),
        (dict(env="gymnasium/CartPole-v1"), "gymnasium/CartPole-v1.*Python steps it"),
        (dict(env="probes:MaskedOut"), "MaskedOut.*cannot mask"),
        (dict(core="gru"), "core = 'gru': DQN has none"),
        (dict(ent_coef=0.1), "ent_coef = 0.1: DQN has none"),
        (dict(exploration_fraction=0), r"exploration_fraction = 0.*above 0"),
        (dict(exploration_final=1.5), r"exploration_final = 1.5.*in \[0, 1\]"),
        (dict(gradient_steps=0), "gradient_steps = 0: must be at least 1"),
        (dict(buffer_size=16, gradient_steps=3), "buffer_size = 16.*replay_batch_size = 48"),
        (dict(buffer_size=15), "replay_batch_size = 16.*buffer_size = 15"),
        (dict(buffer_size=16, num_envs=8), "buffer_size = 16.*num_envs [*] num_steps = 32"),
        (dict(learning_starts=640), "learning_starts = 640: must be below total_timesteps = 640"),
    ],
)
def test_bad_settings_are_refused_in_a_line(capsys, tmp_path, flags, words):
    told = FLAGS | dict(env="probes:RewardByAction", run_dir=tmp_path / "run") | flags
    argv = [text for name, x in told.items() for text in (f"--{name.replace('_', '-')}", str(x))]
    assert training.main("dqn", "Trains.", argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(words, err)
    assert not (tmp_path / "run").exists()


def test_other_refusals(monkeypatch):
    spec = EnvSpec("two arms", spaces.Numbers((1,)), spaces.MultiDiscrete((2,), (2, 3)))
    with pytest.raises(ValueError, match=r"two arms: its actions are several.*a2c and a3c can"):
        networks.make(SMALL, spec)
    with pytest.raises(ValueError, match="heads = 'actor_critic': DQN has Q values alone"):
        dqn.init(dataclasses.replace(SMALL, heads="actor_critic"), OPTIONS, KEYS[0])
    with pytest.raises(ValueError, match="core = 'lstm'"):
        dqn.in_one_program(dataclasses.replace(SMALL, core="lstm"))
    with pytest.raises(ValueError, match="heads = 'q': this algorithm needs a policy"):
        tiny.init(SMALL, KEYS[0])
    monkeypatch.setitem(sys.modules, "flashbax", None)
    with pytest.raises(ValueError, match=r"'dqn': .* flashbax is missing: pip .*\[dqn\]"):
        dqn.init(SMALL, OPTIONS, KEYS[0])


def test_presets():
    for algorithm, env in presets.PRESETS:
        if algorithm == "dqn":
            start = settings.start_from("dqn", env)
            assert start.config == start.own[0].settle(start.config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "changes", "observations", "expected"),
    [
        ("RewardByObservation", {}, [-1.0, 1.0], [-1.0, 1.0]),
        ("DelayedReward", {}, [0.0, 1.0], [0.9, 1.0]),
        ("Truncating", {}, [0.0, 1.0], [4.0, 10.0]),
        ("RewardByObservation", {"normalize_observations": True}, [-1.0, 1.0], [-1.0, 1.0]),
    ],
)
def test_values_of_probe_environments(env, changes, observations, expected):
    changes = {"normalize_rewards": False, **changes}  # values are of rewards as they are
    config = dataclasses.replace(
        SMALL, env=f"probes:{env}", total_timesteps=16_000, anneal_lr=True, **changes
    )
    state, _ = TRAIN(config, OPTIONS, KEYS[0])
    policy = evaluation.policy(config, state.learner, greedy=True)
    found = [float(policy.value(np.float32([x]))) for x in observations]
    np.testing.assert_allclose(found, expected, atol=0.15)


@pytest.mark.slow
def test_seeds_and_settings_are_vmapped():
    """To rounding a member is as it is alone; a learning rate of 0 learns nothing."""
    config = dataclasses.replace(SMALL, normalize_rewards=True)
    configs = [dataclasses.replace(config, learning_rate=rate) for rate in (0.0, 1e-2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *configs)
    states, metrics = jax.jit(jax.vmap(dqn.train, (0, None, None)))(stacked, OPTIONS, KEYS[0])
    alone, _ = TRAIN(config, OPTIONS, KEYS[0])
    for one, many in zip(*map(jax.tree.leaves, (alone.learner.params, states.learner.params))):
        np.testing.assert_allclose(one, many[1], rtol=1e-2, atol=1e-3)
    fresh = INIT(config, OPTIONS, KEYS[0]).learner.params
    still = jax.tree.map(lambda x: x[0], states.learner.params)
    assert not differs(fresh, still)
    np.testing.assert_array_equal(metrics.learning_rate[0], 0.0)


@pytest.mark.slow
def test_images_are_kept_in_their_dtype():
    config = dataclasses.replace(SMALL, env="probes:Picture", total_timesteps=160)
    state, metrics = TRAIN(config, OPTIONS, KEYS[0])
    assert dqn.summary(jax.tree.map(lambda x: x[None], state))["replay_buffer_bytes"] == (
        256 * (2 * 16 + 12) + 5
    )
    assert np.all(np.isfinite(metrics.losses["loss"]))


def test_q_values_are_those_of_the_policy():
    state = INIT(SMALL, OPTIONS, KEYS[0])
    q = q_values(SMALL, state, [0.0, 1.0])
    policy = evaluation.policy(SMALL, state.learner)
    found = policy.distribution(np.float32([[0.0], [1.0]]))
    np.testing.assert_array_equal(found.mode(), q.argmax(axis=1))
    np.testing.assert_array_equal(found.probs.max(axis=1), 1.0)
    np.testing.assert_allclose(policy.value(np.float32([[0.0], [1.0]])), q.max(axis=1), rtol=1e-6)
