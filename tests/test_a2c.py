"""A2C as a whole: what it learns, and what of it is exact."""

import dataclasses
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import tiny
from scripts import script

from rljax import Config, a2c, evaluation
from rljax.rollout import make_env_and_network
from rljax.runs import checkpoints
from rljax.utils import seeds
from rljax.utils.forkserver import EnvError

SMALL = Config(
    env="probes:RewardByObservation",
    total_timesteps=4_000,
    num_envs=8,
    num_steps=4,
    gamma=0.9,
    optimizer="adam",
    learning_rate=1e-2,
    hidden_sizes=(16,),
)
TRAIN, UPDATE, ROW = tiny.train, tiny.update, jax.jit(a2c.row)
KEYS = jax.random.split(jax.random.key(0), 2)
SWEEP = jax.jit(jax.vmap(a2c.train, (0, None)))


@pytest.fixture(scope="module")
def small_run():
    return TRAIN(SMALL, jax.random.key(0))


def test_a_row_of_millions_of_updates_still_takes_small_numbers():
    config = dataclasses.replace(SMALL, total_timesteps=SMALL.batch_size * 10**8)
    state = tiny.init(SMALL, jax.random.key(0))
    large = jax.tree.map(lambda x: (x + 2**25).astype(x.dtype), state.row)
    state = state._replace(
        learner=state.learner._replace(updates=jnp.int32(1)),
        row=large._replace(updates=jnp.int32(1), diverged_at=jnp.int32(0)),
    )
    alone = []
    for _ in range(20):
        alone.append(ROW(UPDATE(config, a2c.begin_row(state))))
        state = UPDATE(config, state)
    for name in ("entropy", "learning_rate", "value_loss"):
        added = sum(float(numbers_of(row)[name]) for row in alone)
        found = (float(numbers_of(x)[name]) for x in (state.row, state.row_error))
        np.testing.assert_allclose(next(found) - next(found) - 2**25, added, rtol=1e-5)


def numbers_of(metrics):
    return {**metrics.losses, "learning_rate": metrics.learning_rate}


def test_a_program_that_fails_says_when_and_what_came_before_stays():
    config = dataclasses.replace(SMALL, env=probes.CallingBack(calls=12), num_envs=2)
    updates = []

    def train():
        for states, _ in a2c.chunks(config, KEYS[:1]):
            updates.append(int(states.learner.updates[0]))

    with pytest.raises(EnvError, match=r"(?s)^env = .*CallingBack.*updates after 1: .*out of fuel"):
        train()
    assert updates == [1]


def values(config, state, observations):
    _, network = make_env_and_network(config)
    return np.asarray(critic(network, state.learner.params, np.float32(observations)[:, None]))


@partial(jax.jit, static_argnums=0)
def critic(network, params, observations):
    return network.apply(params, observations, method="critic")


@pytest.mark.parametrize(
    ("env", "changes", "observations", "expected"),
    [
        ("RewardByObservation", {}, [-1.0, 1.0], [-1.0, 1.0]),
        ("DelayedReward", {}, [0.0, 1.0], [0.9, 1.0]),
        ("DelayedReward", {"gae_lambda": 0.5}, [0.0, 1.0], [0.9, 1.0]),
        ("Truncating", {"total_timesteps": 16_000}, [0.0, 1.0], [4.0, 10.0]),
        ("Truncating", {"total_timesteps": 16_000, "gae_lambda": 0.9}, [0.0, 1.0], [4.0, 10.0]),
    ],
)
def test_values_of_probe_environments(env, changes, observations, expected):
    config = dataclasses.replace(SMALL, env=f"probes:{env}", **changes)
    state, _ = TRAIN(config, jax.random.key(0))
    np.testing.assert_allclose(values(config, state, observations), expected, atol=0.1)


def test_policy_learns_which_action_pays():
    config = dataclasses.replace(SMALL, env="probes:RewardByAction")
    state, metrics = TRAIN(config, jax.random.key(0))
    assert metrics.episodic_return[-1] > 0.9
    act = evaluation.policy(config, state.learner, greedy=True)
    assert act(jnp.zeros(1), jax.random.key(0)) == 1


@pytest.mark.parametrize("action_bounds", ["clip", "tanh"])
def test_policy_learns_a_continuous_target(action_bounds):
    config = dataclasses.replace(
        SMALL, env="probes:Target", action_bounds=action_bounds, total_timesteps=16_000
    )
    state, _ = TRAIN(config, jax.random.key(0))
    act = evaluation.policy(config, state.learner, greedy=True)
    assert act(jnp.zeros(1), jax.random.key(0)) == pytest.approx(2.0, abs=0.2)


def test_normalised_observations_and_rewards_learn():
    config = dataclasses.replace(
        SMALL, env="probes:RewardByAction", normalize_observations=True, normalize_rewards=True
    )
    state, metrics = TRAIN(config, jax.random.key(0))
    assert metrics.episodic_return[-1] > 0.9
    steps = config.num_updates * config.batch_size
    assert state.learner.obs_moments.count == pytest.approx(steps, rel=1e-4)
    assert state.learner.return_moments.count == pytest.approx(steps, rel=1e-4)


def test_corridor_needs_a_stochastic_policy():
    """3 seeds; the optimum is about -11.6."""
    config = dataclasses.replace(
        SMALL,
        env=script("claims/corridor").Corridor(),
        total_timesteps=60_000,
        num_envs=16,
        num_steps=16,
        gamma=1.0,
        learning_rate=3e-3,
    )
    keys = jax.random.split(jax.random.key(0), 3)
    states, _ = jax.jit(jax.vmap(a2c.train, (None, 0)))(config, keys)
    played = evaluation.evaluate(config, states.learner, keys, 1000, False)
    assert np.all(played.returns.mean(axis=1) > -13.0)


def test_same_key_same_bits(small_run):
    again = TRAIN(SMALL, jax.random.key(0))
    jax.tree.map(assert_same_bits, small_run, again)
    other, _ = TRAIN(SMALL, jax.random.key(1))
    kernels = [jax.tree.leaves(state.learner.params)[1] for state in (small_run[0], other)]
    assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_two_processes_same_bits():
    code = """
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
import test_a2c
result = test_a2c.TRAIN(test_a2c.SMALL, jax.random.key(0))
leaves = [np.asarray(x) for x in jax.tree.leaves((result[0].learner, result[1]))]
print(b"".join(x.tobytes() for x in leaves).hex())
"""
    tests = Path(__file__).parent
    environ = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}  # each compiles for itself
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tests, env=environ, stdout=subprocess.PIPE
        )
        for _ in range(2)
    ]
    printed = [process.communicate()[0] for process in started]
    assert len(printed[0]) > 1000
    assert printed[0] == printed[1]


def test_vmapped_seed_agrees_with_the_same_seed_alone():
    """To rounding, for ten updates; XLA may fuse the two programs differently."""

    def after_ten(keys):
        return next(s for s, m in a2c.chunks(SMALL, keys) if m.updates[0] == 10)

    alone = tiny.init(SMALL, KEYS[1])
    for _ in range(10):
        alone = UPDATE(SMALL, alone)
    together = after_ten(KEYS)
    for one, many in zip(jax.tree.leaves(alone.learner), jax.tree.leaves(together.learner)):
        np.testing.assert_allclose(one, many[1], rtol=1e-4, atol=1e-5)


def test_stacked_config_is_a_sweep():
    """A learning rate of 0 learns nothing beside one that learns."""
    configs = [dataclasses.replace(SMALL, learning_rate=rate) for rate in (0.0, 1e-2)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *configs)
    states, metrics = SWEEP(stacked, jax.random.key(0))
    np.testing.assert_array_equal(metrics.learning_rate[0], 0.0)
    fresh = tiny.init(SMALL, jax.random.key(0))
    first, second = (
        states._replace(learner=jax.tree.map(lambda x, i=i: np.asarray(x)[i], states.learner))
        for i in (0, 1)
    )
    np.testing.assert_allclose(
        values(SMALL, first, [-1.0, 1.0]), values(SMALL, fresh, [-1.0, 1.0]), rtol=1e-5
    )
    np.testing.assert_allclose(values(SMALL, second, [-1.0, 1.0]), [-1.0, 1.0], atol=0.1)


def test_other_floats_compile_nothing(small_run):
    compiled = []
    listen = lambda event, seconds, **_: "backend_compile" in event and compiled.append(event)  # noqa: E731
    key = jax.random.key(0)
    floats = [0.1, 1, np.float32(0.1), np.float64(0.1), jnp.float32(0.1), jnp.asarray(0.1)]
    configs = [dataclasses.replace(SMALL, learning_rate=x, ent_coef=x) for x in floats]
    jax.monitoring.register_event_duration_secs_listener(listen)
    for config in configs:
        TRAIN(config, key)
    assert compiled == []
    jax.jit(lambda x: x + 1)(0)
    assert compiled  # the listener does hear compilations


def test_chunks_give_the_same_bits_however_long(monkeypatch):
    """Also the rows of metrics: a row's sums are carried from chunk to chunk."""

    def follow(seconds):
        monkeypatch.setattr(seeds, "CHUNK_SECONDS", seconds)
        chunks = list(a2c.chunks(SMALL, KEYS))
        rows = [metrics for _, metrics in chunks if tiny.is_row(SMALL, metrics)]
        return len(chunks), chunks[-1][0], rows

    number, state, rows = follow(1e-9)
    assert number == SMALL.num_updates
    fewer, other_state, other_rows = follow(100.0)
    assert fewer < number
    jax.tree.map(assert_same_bits, (state, rows), (other_state, other_rows))
    assert [int(row.updates[0]) for row in rows] == [*range(2, SMALL.num_updates, 2), 125]


def test_train_gives_the_rows_of_chunks():
    _, metrics = TRAIN(SMALL, KEYS[0])
    rows = [m for _, m in a2c.chunks(SMALL, KEYS) if tiny.is_row(SMALL, m)]
    stacked = jax.tree.map(lambda *x: np.stack(x)[:, 0], *rows)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), metrics, stacked
    )


def test_metrics_do_not_grow_with_the_number_of_updates(monkeypatch):
    """Neither `train`'s rows, nor what is alive while a run is followed."""
    for total in (40_000, 4_000_000):
        longer = dataclasses.replace(SMALL, total_timesteps=total)
        _, metrics = jax.eval_shape(a2c.train, longer, KEYS[0])
        assert 50 <= metrics.updates.shape[0] <= 100
    monkeypatch.setattr(seeds, "CHUNK_SECONDS", 1e-9)
    alive = []
    for state, metrics in a2c.chunks(SMALL, KEYS):
        assert metrics.losses["policy_loss"].shape == (2,)
        del state
        alive.append(sum(x.nbytes for x in jax.live_arrays()))
    assert len(alive) == SMALL.num_updates
    assert alive[-1] == alive[10]


def test_saved_and_restored_state_continues_to_the_same_bits(tmp_path):
    chunks = a2c.chunks(SMALL, KEYS)
    state = next(state for state, metrics in chunks if metrics.updates[0] >= 51)
    checkpoints.save(tmp_path / "51", {"state": state}, {})
    *_, (whole, metrics) = chunks
    _, trees = checkpoints.load(tmp_path / "51")
    restored = checkpoints.restore(trees["state"], jax.eval_shape(a2c.init_seeds, SMALL, KEYS))
    *_, (continued, continued_metrics) = a2c.chunks(SMALL, KEYS, restored)
    jax.tree.map(assert_same_bits, (whole, metrics), (continued, continued_metrics))


def test_own_loop(small_run):
    """`init` and `update`, for people who write their own loop, do what `train` does."""
    state = tiny.init(SMALL, jax.random.key(0))
    for _ in range(SMALL.num_updates):
        state = UPDATE(SMALL, a2c.begin_row(state))
        metrics = ROW(state)
    assert metrics.updates == SMALL.num_updates
    np.testing.assert_allclose(values(SMALL, state, [-1.0, 1.0]), [-1.0, 1.0], atol=0.1)


def test_divergence_is_reported():
    """Of the member that diverged alone, and with the update."""
    configs = [dataclasses.replace(SMALL, learning_rate=rate) for rate in (1e-2, 1e38)]
    stacked = jax.tree.map(lambda *x: np.stack(x), *configs)
    _, metrics = SWEEP(stacked, jax.random.key(0))
    np.testing.assert_array_equal(metrics.diverged_at[0], 0)
    assert 1 <= metrics.diverged_at[1, -1] <= 5
    assert np.all(np.isfinite(metrics.losses["policy_loss"][0]))


def test_bad_settings_raise_before_tracing():
    with pytest.raises(ValueError, match=r"gamma = 1\.5"):
        next(a2c.chunks(dataclasses.replace(SMALL, gamma=1.5), jax.random.key(0)[None]))
    with pytest.raises(ValueError, match="did you mean CartPole-v1"):
        a2c.init(Config(env="CartPol-v1"), jax.random.key(0))


def test_environment_object():
    """And the values that are learned in it."""
    config = dataclasses.replace(SMALL, env=probes.ConstantReward())
    state, metrics = TRAIN(config, jax.random.key(0))
    np.testing.assert_allclose(metrics.episodic_return, 1.0)
    np.testing.assert_allclose(values(config, state, [0.0]), [1.0], atol=0.1)


def assert_same_bits(x, y):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
