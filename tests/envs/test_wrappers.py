"""Wrappers by name, and stacks of the last observations, in JAX and where Python steps."""

import dataclasses
import json

import chance
import gymnasium
import jax
import numpy as np
import pytest
import small_runs
import tiny
from erratic_envs import BYTES
from test_contract import play

import rljax
from rljax import Config, a3c, envs, evaluation, rollout, sweep
from rljax.cli.flags import parse
from rljax.config import WorkerConfig
from rljax.envs.spaces import Box
from rljax.sweep import points

STEPS, ENVS = 60, 3

POSITIONS = {
    "gymnax/CartPole-v1": [1, 0, 1, 0],
    "gymnax/MountainCar-v0": [1, 0],
    "gymnax/MountainCarContinuous-v0": [1, 0],
    "gymnax/Pendulum-v1": [1, 1, 0],
    "gymnax/Acrobot-v1": [1, 1, 1, 1, 0, 0],
    "gymnasium/CartPole-v1": [1, 0, 1, 0],
    "gymnasium/MountainCar-v0": [1, 0],
    "gymnasium/MountainCarContinuous-v0": [1, 0],
    "gymnasium/Pendulum-v1": [1, 1, 0],
    "gymnasium/Acrobot-v1": [1, 1, 1, 1, 0, 0],
    "gymnasium/LunarLander-v3": [1, 1, 0, 0, 1, 0, 1, 1],
    "gymnasium/LunarLanderContinuous-v3": [1, 1, 0, 0, 1, 0, 1, 1],
}


def played(env, seed=0, steps=STEPS):
    """What `play` gives with random actions, the same for environments with the same actions."""
    rng, space = np.random.default_rng(seed), env.spec.action_space
    if isinstance(space, Box):
        actions = rng.uniform(-1, 1, (steps, ENVS, *space.shape)).astype(np.float32)
    else:
        actions = rng.integers(space.n, size=(steps, ENVS), dtype=np.int32)
    return play(env, actions, seed)


@pytest.mark.parametrize("name", POSITIONS)
def test_velocities_are_masked_and_nothing_else_changes(name):
    if "Lunar" in name:
        pytest.importorskip("Box2D")
    kept = np.float32(POSITIONS[name])
    plain, masked = (
        envs.make(name, num_envs=ENVS, wrappers=names) for names in ((), ("mask_velocity",))
    )
    assert masked.spec == plain.spec
    (obs, steps), (masked_obs, masked_steps) = played(plain), played(masked)
    assert np.abs(steps.obs).max(axis=(0, 1))[kept == 0].min() > 0
    np.testing.assert_array_equal(masked_obs, obs * kept)
    expected = steps._replace(obs=steps.obs * kept, final_obs=steps.final_obs * kept)
    for found, right in zip(*map(jax.tree.leaves, (masked_steps, expected))):  # rounded differently
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-4)
    assert not masked_steps.obs[..., kept == 0].any()
    assert not masked_steps.final_obs[..., kept == 0].any()


def test_processes_mask_the_same():
    how = ("gymnasium/CartPole-v1", (), (), ENVS)
    sync, other = (
        played(envs.make(*how, kind, wrappers=("mask_velocity",), frame_stack=2))
        for kind in ("sync", "async")
    )
    assert not sync[1].obs[..., [1, 3, 5, 7]].any()
    jax.tree.map(np.testing.assert_array_equal, sync, other)


# The axis along which observations are joined, and the shape of one that has too few axes.
JOINED = {
    "vector": (0, None),
    "number": (0, (1,)),
    "image": (2, None),
    "first": (0, None),
    "grey": (2, (4, 5, 1)),
    "grid": (1, None),
    "dict": (0, None),
    "discrete": (0, None),
}


def reference(number, kind, obs, steps):
    """Stacks of what an environment without them gave, one environment and step after another."""
    axis, shape = JOINED[kind]

    def join(frames):
        return np.concatenate([x.reshape(shape or x.shape) for x in frames], axis)

    frames = [[one] * number for one in obs]
    stacks, finals = [], []
    for t in range(len(steps.obs)):
        for i, last in enumerate(frames):
            last.append(steps.final_obs[t, i])
            del last[0]
        finals.append([join(last) for last in frames])
        for i in range(len(frames)):
            if steps.terminated[t, i] or steps.truncated[t, i]:
                frames[i] = [steps.obs[t, i]] * number
        stacks.append([join(last) for last in frames])
    first = np.array([join([one] * number) for one in obs])
    return first, steps._replace(obs=np.array(stacks), final_obs=np.array(finals))


def check_stacks(kind, form, number, vectorization="sync"):
    how = f"erratic_envs:{form}", (("kind", kind),), (), ENVS, vectorization
    plain, stacked = (envs.make(*how, frame_stack=n) for n in (1, number))
    obs, steps = played(plain, seed=3)
    first, expected = reference(number, kind, obs, steps)
    found_first, found = played(stacked, seed=3)
    np.testing.assert_array_equal(found_first, first)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert found.obs.dtype == found.final_obs.dtype == steps.obs.dtype
    assert stacked.spec.obs_shape == found.obs.shape[2:]
    assert stacked.spec.observation.dtype == found.obs.dtype

    # Episodes ended in every way, also in two steps one after the other and at the first of all.
    ends = steps.terminated | steps.truncated
    for flags in ((True, False), (False, True), (True, True)):
        assert ((steps.terminated == flags[0]) & (steps.truncated == flags[1])).any()
    assert (ends[1:] & ends[:-1]).any()
    assert ends[0].any()
    return stacked


@pytest.mark.parametrize("kind", JOINED)
@pytest.mark.parametrize("form", ["InJax", "OnHost"])
def test_stacks_are_those_of_a_plain_loop(form, kind):
    check_stacks(kind, form, 5)
    stacked = check_stacks(kind, form, 3)
    if form == "InJax":
        assert stacked.spec.observation.dtype == ("uint8" if kind in BYTES else "float32")


@pytest.mark.slow
def test_stacks_in_processes():
    check_stacks("image", "OnHost", 3, "async")


def test_a_mask_of_actions_stays():
    env = envs.make("probes:Counter", frame_stack=2)
    state, _ = env.reset(jax.random.key(0))
    assert env.mask(state).tolist() == [True, True, True]
    state, step = env.step(chance.of_one(env, jax.random.key(1), state), state, np.int32(1))
    assert env.mask(state).tolist() == step.mask.tolist() == [True, True, False]
    np.testing.assert_array_equal(step.obs, [0, 1, 0, 1, 0, 1])


WRAPPED = dict(wrappers=("mask_velocity",), frame_stack=3)


@pytest.mark.parametrize("env", ["gymnax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_an_evaluation_is_of_the_wrapped_environment(env):
    """As one without the wrapper, of a network that does not see velocities."""
    config = Config(env=env, hidden_sizes=(8,), wrappers=("mask_velocity",))
    made, network = rollout.make_env_and_network(config)
    keys = jax.random.split(jax.random.key(3), 4)
    learners = tiny.init_learners(config, network, made.spec, keys)
    plain = dataclasses.replace(config, wrappers=())

    def blind(leaf):
        is_first = leaf.shape == (4, 4, 8)  # seeds, observed numbers, units
        return np.asarray(leaf) * np.float32([1, 0, 1, 0])[:, None] if is_first else leaf

    blinded = jax.tree.map(blind, learners.params)
    of_wrapped, of_blind, of_plain = (
        evaluation.evaluate(*one, keys, 4, True, max_steps=60).returns
        for one in (
            (config, learners),
            (plain, learners._replace(params=blinded)),
            (plain, learners),
        )
    )
    np.testing.assert_array_equal(of_wrapped, of_blind)
    assert (of_wrapped != of_plain).any()


def test_a_policy_takes_what_gymnasium_stacks():
    config = Config(env="gymnasium/CartPole-v1", hidden_sizes=(8,), **WRAPPED)
    env, network = rollout.make_env_and_network(config)
    learner = tiny.init_learner(config, network, env.spec, jax.random.key(1))
    policy = evaluation.policy(config, learner, greedy=True)
    own = gymnasium.wrappers.FrameStackObservation(gymnasium.make("CartPole-v1"), 3)
    given, _ = own.reset(seed=7)
    stacks, actions, seen = [], [], []
    with env.open() as running:
        obs, _ = running.reset([7])
        for _ in range(8):
            stacks.append(given)
            seen.append(np.asarray(rollout.choose(network, learner, obs, None, None)[0]).item())
            actions.append(policy(given))
            given, *_ = own.step(actions[-1])
            obs = running.step(np.array([actions[-1]])).obs
    assert actions == seen
    assert policy(np.array(stacks)).tolist() == seen
    with pytest.raises(ValueError, match="frame_stack = 3: must be given as many observations"):
        policy(given[:2])


@pytest.mark.slow
@pytest.mark.parametrize("env", ["gymnax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_a_run_is_recorded_and_resumed(env, tmp_path, undrawn):
    """In JAX to the same bits; where Python steps, episodes begin anew."""
    more = dict(env=env, **WRAPPED, total_timesteps=800, eval_every=400)
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    run = small_runs.train(straight, **more)
    torso = run.state["learner"]["params"]["params"]["actor_torso"]
    assert torso["Dense_0"]["kernel"].shape == (2, 12, 8)
    record = json.loads((straight / "config.json").read_text())["config"]
    assert (record["wrappers"], record["frame_stack"]) == (["mask_velocity"], 3)
    loaded = rljax.load(straight)
    assert (loaded.config.wrappers, loaded.config.frame_stack) == (("mask_velocity",), 3)
    assert loaded.evaluate(episodes=2)["mean"] >= 1

    with pytest.MonkeyPatch.context() as patch:
        small_runs.stop_at_update(patch, 26)
        assert small_runs.train(halved, **more).status == "interrupted"
    with pytest.raises(ValueError, match="may be raised: the run has frame_stack = 3"):
        rljax.resume(halved, frame_stack=4)
    with pytest.raises(ValueError, match="may be raised: the run has wrappers = "):
        rljax.resume(halved, wrappers=())
    assert rljax.resume(halved).status == "completed"
    if env.startswith("gymnax"):
        assert small_runs.results(halved) == small_runs.results(straight)


@pytest.mark.slow
@pytest.mark.parametrize("env", ["gymnax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_a3c_trains(env):
    config = Config(env=env, **WRAPPED, total_timesteps=160, num_envs=1, hidden_sizes=(8,))
    workers = WorkerConfig(num_workers=2, lockstep=True)
    state, _ = a3c.train(config, workers, jax.random.key(0))
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.learner.params)}
    assert (12, 8) in shapes
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params))


def test_flags():
    argv = ["--wrappers", "mask_velocity", "--frame-stack", "4"]
    (config,) = parse((Config(),), "", argv)
    assert (config.wrappers, config.frame_stack) == (("mask_velocity",), 4)
    labels = [points.label(value) for value in ((), (64, 32), ("a", "b"))]
    assert labels == ["none", "64x32", "a+b"]


@pytest.mark.slow
def test_axes_of_a_sweep(undrawn):
    base = Config(env="CartPole-v1", total_timesteps=320, hidden_sizes=(8,))
    axes = {"wrappers": [(), ("mask_velocity",)], "frame_stack": [1, 2]}
    table = sweep.run(base, axes, seeds=[0], quiet=True)
    found = table.groupby(["wrappers", "frame_stack"])["eval_return"].max()
    assert found.index.tolist() == [(x, n) for x in ("mask_velocity", "none") for n in (1, 2)]
    assert found.nunique() > 1
    assert not table["diverged"].any()


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"wrappers": ("mask_velocty",)}, ValueError, "did you mean mask_velocity?"),
        ({"wrappers": "mask_velocity"}, TypeError, "must be a tuple of names"),
        ({"wrappers": (1,)}, TypeError, "must be a tuple of names"),
        ({"frame_stack": 0}, ValueError, "frame_stack = 0: must be at least 1"),
        ({"frame_stack": 1.5}, TypeError, "frame_stack = 1.5: must be a whole number"),
        (
            {"env": "Catch-bsuite", "wrappers": ("mask_velocity",)},
            ValueError,
            "mask_velocity is for CartPole, MountainCar, MountainCarContinuous, Pendulum, Acrobot,"
            " LunarLander, LunarLanderContinuous, not for 'Catch-bsuite'",
        ),
        (
            {"env": "probes:Scripted", "wrappers": ("mask_velocity",)},
            ValueError,
            "not for 'probes:Scripted'",
        ),
    ],
)
def test_bad_input(settings, kind, message):
    with pytest.raises(kind) as error:
        rollout.make_env_and_network(Config(**settings).validate())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
