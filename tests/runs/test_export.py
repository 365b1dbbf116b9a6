"""Exported policies are played in NumPy alone, from what is said of their two files."""

import subprocess
import sys
from functools import partial

import jax
import numpy as np
import numpy_player
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Tuple
from host_probes import Sampling

import rljax
from rljax import Config, networks, rollout
from rljax.runs import Run

SETTINGS = dict(num_envs=4, num_steps=4, hidden_sizes=(8,))
TRAINED = dict(
    preset="none",
    total_timesteps=320,
    optimizer="adam",
    learning_rate=0.03,
    num_seeds=2,
    eval_episodes=0,
    quiet=True,
)
"""20 updates, after which no parameter is what it was."""
BOTH = ("last_action", "last_reward")


def pictures():
    return Sampling(Box(0, 255, (5, 4), np.uint8), MultiDiscrete([3] * 4))


def parts():
    numbers = Box(-2, 2, (2,), np.float32)
    observed = Dict({"where": Tuple((numbers, Discrete(3, start=1))), "odd": MultiDiscrete([2, 2])})
    return Sampling(observed, MultiDiscrete([[2], [4]]))


def atari():
    """Images of the least size, and a row and a column more, which no patch reaches."""
    return Sampling(Box(0, 255, (4, 37, 36), np.uint8), Discrete(6))


def number():
    return Sampling(Box(-2, 2, (), np.float32), Box(-1, np.inf, (2, 1), np.float32))


RUNS = {
    "mlp": ("Acrobot-v1", dict(activation="relu", hidden_sizes=(6, 8))),
    "q": ("Acrobot-v1", dict(heads="q", activation="relu")),
    "tanh": ("Pendulum-v1", dict(action_bounds="tanh", normalize_observations=True)),
    "clip": (number, dict(activation="gelu", frame_stack=3, shared_torso=True)),
    "cnn": (pictures, dict(activation="elu", frame_stack=2, normalize_observations=True)),
    "nature": (atari, dict(network="nature", hidden_sizes=(64, 64), activation="tanh")),
    "a3c": (atari, dict(network="a3c", hidden_sizes=(64, 64), activation="tanh")),
    "first": (
        "erratic_envs:InJax",
        dict(env_kwargs={"kind": "first"}, normalize_observations=True),
    ),
    "lstm": ("Acrobot-v1", dict(core="lstm", core_size=6, core_inputs=BOTH)),
    "gru": ("Pendulum-v1", dict(core="gru", core_size=6, core_inputs=BOTH[:1], shared_torso=True)),
    "parts": (parts, dict(core="gru", core_size=6, core_inputs=BOTH[::-1], activation="silu")),
}


def drawn(env, settings):
    """A run of two seeds whose parameters, and moments, are drawn: none is 0, as many would be."""
    config = Config(env=env, **{**SETTINGS, **settings})
    made, network = rollout.make_env_and_network(config)
    shapes = jax.eval_shape(partial(networks.init, config, network, made.spec), jax.random.key(0))
    rng = np.random.default_rng(1)
    draw = lambda shape: rng.normal(size=(2, *shape)).astype(np.float32)  # noqa: E731
    learner = {"params": jax.tree.map(lambda x: draw(x.shape), shapes), "updates": np.zeros(2, int)}
    if config.normalize_observations:
        mean, var = (draw(made.spec.obs_shape) for _ in range(2))
        learner["obs_moments"] = {"count": np.ones(2), "mean": mean, "var": np.square(var)}
    return Run("a2c", config, [0, 1], None, {}, {"learner": learner}, [0, 0])


def observations(env, number, rng):
    """As the environment gives them."""
    if callable(env):
        space = env().observation_space
        space.seed(0)
        return [space.sample() for _ in range(number)]
    if env == "erratic_envs:InJax":
        return list(rng.integers(0, 256, (number, 2, 4, 5), np.uint8))
    size = {"Acrobot-v1": 6, "Pendulum-v1": 3}[env]
    return list(2 * rng.normal(size=(number, size)).astype(np.float32))


def of_policy(run, env, seen):
    """What `Run.policy` takes: of environments that Python steps, the last ones where they are
    stacked."""
    stack = run.config.frame_stack
    return seen[-1] if stack == 1 else np.stack([*[seen[0]] * stack, *seen][-stack:])


def drawn_mask(space, rng):
    """Of the valid ones of `Discrete` actions, at every second step or so."""
    if space["kind"] != "Discrete" or rng.random() < 0.5:
        return None
    mask = rng.random(space["n"]) < 0.5
    mask[rng.integers(space["n"])] = True
    return mask


def compare(run, env, tmp_path):
    """The second seed's policy and the player, over two episodes of 16 steps; returns the distinct
    actions where all were valid."""
    exported = numpy_player.load(run.export_params(tmp_path / "policy.safetensors", 1))
    policy, has_core = run.policy(1, greedy=True), run.config.core != "none"
    rng, actions = np.random.default_rng(0), set()
    for _ in range(2):
        memory, seen = numpy_player.first(exported), []
        carry, reward = policy.initial_carry() if has_core else (), 0.0
        for obs in observations(env, 16, rng):
            seen.append(obs)
            given = of_policy(run, env, seen)
            mask = drawn_mask(exported.policy["action_space"], rng)
            if has_core:
                expected, carry = policy(given, None, carry, mask, reward=reward)
            else:
                expected = policy(given, None, mask)
            action, memory = numpy_player.act(exported, memory, obs, mask)
            assert np.shape(action) == np.shape(expected)
            np.testing.assert_allclose(action, expected, rtol=1e-4, atol=1e-5)
            theirs = jax.tree.leaves(carry.cores[0]) if has_core else []
            for here, there in zip(jax.tree.leaves(memory.carry), theirs, strict=True):
                np.testing.assert_allclose(here, there[0], rtol=1e-4, atol=1e-5)
            reward = float(rng.normal())
            memory = memory._replace(last_reward=reward)
            actions |= {str(action)} if mask is None else set()
    return actions


@pytest.mark.parametrize("name", RUNS)
def test_a_player_in_numpy_alone_acts_as_the_policy(name, tmp_path):
    """From the first carry through the order of a core's inputs and of its gates to the action."""
    env, settings = RUNS[name]
    assert len(compare(drawn(env, settings), env, tmp_path)) > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tanh", "gru"])
def test_a_policy_that_was_trained_is_played_in_numpy_alone(name, tmp_path):
    env, settings = RUNS[name]
    run = rljax.train("a2c", env, **{**SETTINGS, **TRAINED, **settings})
    assert len(compare(run, env, tmp_path)) > 1


def test_the_player_imports_neither_jax_nor_rljax():
    code = "import sys, numpy_player; sys.exit(bool({'jax', 'rljax'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_carried_first_has_plain_names(tmp_path):
    """Of one environment; without a core there is nothing."""
    run = drawn("Acrobot-v1", RUNS["lstm"][1])
    arrays = numpy_player.load(run.export_params(tmp_path / "policy.safetensors")).arrays
    shapes = {name: x.shape for name, x in arrays.items() if name.startswith("carry.")}
    cores = {f"carry.cores.{core}.{part}": (6,) for core in (0, 1) for part in (0, 1)}
    assert shapes == {**cores, "carry.last_action": (3,), "carry.last_reward": ()}
    run = drawn("Acrobot-v1", {})
    arrays = numpy_player.load(run.export_params(tmp_path / "other.safetensors")).arrays
    assert all(name.startswith("params.") for name in arrays)
