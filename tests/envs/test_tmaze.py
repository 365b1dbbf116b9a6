"""The T-maze: its rules, and the best return without a memory; memory tasks in runs and sweeps."""

import itertools

import chance
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from rljax import Config, a2c, envs
from rljax.cli import sweep, training
from rljax.envs.tmaze import DOWN, FORWARD, UP, TMaze, TMazeParams, TMazeState


def episode(corridor, choose, seed=0, limit=200):
    """(observations, rewards, terminated, truncated) of an episode; `choose` takes all observations
    so far."""
    params = (("corridor", corridor), ("max_steps_in_episode", limit))
    env = envs.make("TMaze", (), params)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    state, obs = reset(jax.random.key(seed))
    seen, rewards, answer = [np.asarray(obs)], [], None
    while answer is None or not (answer.terminated or answer.truncated):
        key = jax.random.key(len(rewards))
        state, answer = step(chance.of_one(env, key, state), state, np.int32(choose(seen)))
        seen.append(np.asarray(answer.final_obs))
        rewards.append(float(answer.reward))
    return np.array(seen), rewards, bool(answer.terminated), bool(answer.truncated)


def remembering(seen):
    if not seen[-1][1]:
        return FORWARD
    return UP if seen[0][0] == 1 else DOWN


@pytest.mark.parametrize("corridor", [1, 5])
def test_who_remembers_the_hint_has_a_return_of_1(corridor):
    hints = set()
    for seed in range(6):
        seen, rewards, *flags = episode(corridor, remembering, seed)
        assert flags == [True, False]
        assert rewards == [0] * corridor + [1]
        hints.add(float(seen[0, 0]))
        assert not seen[1:, 0].any()
        assert seen[:, 1].tolist() == [0] * corridor + [1, 1]
    assert hints == {-1, 1}


def test_the_wrong_turn_and_wasted_steps():
    wrong = episode(3, lambda seen: UP + DOWN - remembering(seen) if seen[-1][1] else FORWARD)
    assert wrong[1:] == ([0, 0, 0, -1], True, False)
    _, rewards, *flags = episode(3, lambda seen: FORWARD, limit=7)
    np.testing.assert_allclose(rewards, [0] * 3 + [-0.1] * 4)
    assert flags == [False, True]
    seen, rewards, *flags = episode(3, lambda seen: UP, limit=7)
    np.testing.assert_allclose(rewards, [-0.1] * 7)
    assert flags == [False, True]
    assert not seen[1:].any()


def returns(corridor, limit, policies):
    """The expected return [P] of memoryless policies [P, O, 3] over O observations, by dynamic
    programming over the environment's states."""
    env, params = TMaze(), TMazeParams(corridor=corridor, max_steps_in_episode=limit)
    axes = np.arange(limit), np.arange(corridor + 1), np.array([-1, 1]), np.arange(3)
    shape = tuple(map(len, axes))
    grid = [jnp.asarray(x.ravel(), jnp.int32) for x in np.meshgrid(*axes, indexing="ij")]

    @jax.vmap
    def look(time, position, hint, action):
        state = TMazeState(time=time, position=position, hint=hint)
        obs = env.get_obs(state, params)
        _, after, reward, ends, _ = env.step_env(jax.random.key(0), state, action, params)
        ends = ends | env.is_truncated(after, params)
        return obs, after.position, reward, ends

    obs, after, reward, ends = (np.array(x).reshape(*shape, *x.shape[1:]) for x in look(*grid))
    obs[0, 1:] = 0  # no episode begins there
    kinds, which = np.unique(obs.reshape(-1, 2), axis=0, return_inverse=True)
    which = which.reshape(shape)[..., 0]
    assert policies.shape[1] == len(kinds) == 4

    values = np.zeros((len(policies), corridor + 1, 2))
    for time in reversed(range(limit)):
        now = np.zeros_like(values)
        for position, hint, action in itertools.product(*map(range, shape[1:])):
            at = time, position, hint, action
            later = 0 if ends[at] else values[:, after[at], hint]
            now[:, position, hint] += policies[:, which[at[:3]], action] * (reward[at] + later)
        values = now
    return values[:, 0].mean(axis=1)


def every_policy(parts):
    """All memoryless policies whose probabilities are multiples of 1 / parts: [P, 4, 3]."""
    rows = [x for x in itertools.product(range(parts + 1), repeat=3) if sum(x) == parts]
    chosen = np.array(list(itertools.product(range(len(rows)), repeat=4)))
    return (np.array(rows) / parts)[chosen]


@pytest.mark.parametrize("corridor", [1, 2, 4])
def test_the_best_return_without_a_memory_is_0(corridor):
    policies = np.concatenate(
        [every_policy(3), np.random.default_rng(0).dirichlet([0.3] * 3, (10_000, 4))]
    )
    found = returns(corridor, corridor + 10, policies)
    assert found.max() == pytest.approx(0, abs=1e-6)


def test_with_a_smaller_limit_time_is_a_memory():
    """So that the bound above is no matter of course."""
    found = returns(2, 3, every_policy(2))
    assert found.max() == pytest.approx(0.45)  # 1 in one half, a wasted step in the other


@pytest.mark.slow
def test_training_reaches_what_is_known():
    """1 where the last observations hold the hint, and else no more than 0."""
    settings = dict(optimizer="adam", learning_rate=3e-3, ent_coef=0.01, gae_lambda=0.95)
    settings |= dict(num_steps=16, total_timesteps=60_000, env_params={"corridor": 2})
    stacked, plain = (
        jax.jit(a2c.train)(Config(env="TMaze", frame_stack=number, **settings), jax.random.key(0))
        for number in (3, 1)
    )
    assert stacked[1].episodic_return[-5:].mean() > 0.95
    assert -0.2 < plain[1].episodic_return[-5:].mean() < 0.15


def test_bad_lengths():
    for value in (0, -3):
        with pytest.raises(ValueError, match=f"corridor = {value}: must be a whole number of"):
            envs.make("TMaze", (), (("corridor", value),))
    with pytest.raises(TypeError, match=r"corridor = 2\.5: must be a whole number"):
        envs.make("TMaze", (), (("corridor", 2.5),))
    with pytest.raises(ValueError, match="unknown environment 'TMaz': did you mean TMaze"):
        envs.make("TMaz")
    with pytest.raises(ValueError, match="unknown environment 'TMaze'"):
        envs.make("gymnasium/TMaze")


MEMORY = {
    "TMaze": ("corridor", 3, 4),
    "MemoryChain-bsuite": ("memory_length", 3, 4),
    "UmbrellaChain-bsuite": ("chain_length", 3, 3),
}
"""A parameter, a value of it, and how long the shortest episode then is."""


@pytest.mark.parametrize("env", MEMORY)
def test_memory_tasks_train(env):
    name, value, length = MEMORY[env]
    config = Config(env=env, env_params={name: value}, total_timesteps=640, hidden_sizes=(8,))
    state, metrics = jax.jit(a2c.train)(config, jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params))
    lengths = metrics.episodic_length[np.isfinite(metrics.episodic_length)]
    assert lengths.min() >= length
    assert env == "TMaze" or set(lengths.tolist()) == {length}


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [env if env == "TMaze" else pytest.param(env, marks=pytest.mark.slow) for env in MEMORY],
)
def test_the_length_is_a_setting_of_scripts_and_an_axis_of_a_sweep(env, tmp_path, monkeypatch):
    name, value, length = MEMORY[env]
    for name_of_plot in ("plot_sensitivity", "plot_heat_map", "plot_learning_curves"):
        monkeypatch.setattr(f"rljax.analysis.{name_of_plot}", lambda *_, **how: None)
    common = f"--env {env} --preset none --total-timesteps 320 --hidden-sizes 8 --quiet".split()
    one = ["--env-params", f"{name}={value}", "--num-seeds", "1", "--eval-episodes", "2"]
    assert training.main("a2c", "Trains.", [*common, *one, "--run-dir", f"{tmp_path}/run"]) == 0
    found = pd.read_csv(tmp_path / "run" / "metrics.csv")["episodic_length"].dropna()
    assert found.min() >= length

    axis = ["--axis", f"env_params.{name}={value},{value + 2}", "--num-seeds", "2"]
    assert sweep.main("Sweeps.", [*common, *axis, "--run-dir", f"{tmp_path}/sweep"]) == 0
    table = pd.read_csv(tmp_path / "sweep" / "results.csv")
    least = table.groupby(f"env_params.{name}")["episodic_length"].min()
    assert least.index.tolist() == [value, value + 2]
    assert (least >= [length, length + 2]).all()
    assert not table["diverged"].any()


def test_a_corridor_longer_than_an_episode_is_refused():
    with pytest.raises(
        ValueError, match="corridor = 200: must be below max_steps_in_episode = 200"
    ):
        envs.make("TMaze", env_params={"corridor": 200}).reset(jax.random.key(0))
    envs.make("TMaze", env_params={"corridor": 199}).reset(jax.random.key(0))
