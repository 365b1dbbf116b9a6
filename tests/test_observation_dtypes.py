"""Observations of few bits stay so, from an environment in JAX to the network."""

import dataclasses

import chance
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import tiny
from small_runs import contents, results, stop_at_update, train

import rljax
from rljax import a2c, a2c_host, envs, evaluation, rollout
from rljax.config import Config
from rljax.envs.spaces import Numbers
from rljax.networks import blocks
from rljax.runs import checkpoints, compatibility
from rljax.utils import pytrees


def config_of(*args, **more):
    return dataclasses.replace(tiny.CONFIG, env=probes.Picture(*args), hidden_sizes=(4,), **more)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        *((name, name) for name in ("uint8", "int8", "bool", "uint16", "int16")),
        *((name, "float32") for name in ("int32", "float32", "float16", "bfloat16")),
    ],
)
def test_what_is_smaller_than_float32_and_whole_is_kept(dtype, kept):
    env = envs.make(probes.Picture(dtype))
    scale = env.spec.observation.scale
    assert env.spec.observation == Numbers((4, 4, 1), 1 / 255, kept)
    state, obs = jax.jit(env.reset)(jax.random.key(3))
    _, step = jax.jit(env.step)(chance.of_one(env, jax.random.key(4), state), state, 1)
    assert (obs.dtype, step.obs.dtype, step.final_obs.dtype) == (kept,) * 3
    network = rollout.make_env_and_network(config_of(dtype))[1]
    given = np.asarray(probes.Picture(dtype).picture(state.mark, "reset")).astype(np.float32)
    taken = blocks.inputs(network, None, obs[None])[0]
    assert taken.dtype == np.float32
    np.testing.assert_allclose(taken, given * scale, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "later"), [("uint8", "float32"), ("bool", "uint8")])
def test_an_environment_that_gives_several_dtypes_gives_float32(dtype, later):
    env = envs.make(probes.Picture(dtype, later))
    assert env.spec.observation == Numbers((4, 4, 1), 1 / 255)
    state, obs = env.reset(jax.random.key(3))
    _, step = env.step(chance.of_one(env, jax.random.key(4), state), state, 1)
    assert obs.dtype == step.obs.dtype == step.final_obs.dtype == np.float32
    expected = probes.Picture(later).picture((state.mark + 8) % 256, "step") / 255
    np.testing.assert_allclose(step.final_obs, expected, rtol=1e-6)


def test_parts_are_one_vector_of_float32():
    class Parts(probes.Picture):
        def picture(self, mark, method):
            return {"image": super().picture(mark, method), "mark": mark}

        def observation_space(self, params):
            raise NotImplementedError

    spec = envs.make(Parts()).spec
    assert spec.obs_shape == (17,)
    assert jax.eval_shape(envs.make(Parts()).reset, jax.random.key(0))[1].dtype == np.float32


class Bytes(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)
    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8)
    dtype = np.uint8

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._image(), {}

    def step(self, action):
        return self._image(), float(action), self.np_random.random() < 0.2, False, {}

    def _image(self):
        return self.np_random.integers(0, 256, (4, 4, 3)).astype(self.dtype)


class Whole(Bytes):
    """Bytes as whole numbers of float64."""

    dtype = np.float64


class Fractions(Bytes):
    def _image(self):
        return np.full((4, 4, 3), 0.5)


class InFloats(Bytes):
    """Declared as float32, as the bytes are, and so encoded."""

    observation_space = gymnasium.spaces.Box(0, 255, (4, 4, 3), np.float32)
    dtype = np.float32


@pytest.mark.slow
@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_gymnasium_s_bytes_are_kept(vectorization):
    for env in (Bytes, Whole):
        made = envs.make(env, num_envs=2, vectorization=vectorization)
        assert made.spec.observation == Numbers((4, 4, 3), 1 / 255, "uint8")
        with made.open() as running:
            obs, _ = running.reset([0, 1])
            for _ in range(9):
                step = running.step(np.ones(2, np.int32))
                assert (obs.dtype, step.obs.dtype, step.final_obs.dtype) == ("uint8",) * 3
    with pytest.raises(ValueError, match="observation of float64 is not of uint8, as its space"):
        envs.make(Fractions)


@pytest.mark.parametrize("core", ["none", pytest.param("gru", marks=pytest.mark.slow)])
@pytest.mark.parametrize("other", ["nothing is recorded", "the state is passed whole"])
def test_however_images_are_handed_to_the_update_it_is_the_same(other, core, monkeypatch):
    """On a CPU, acting records what the update reuses; a small state is a vector in between."""
    how = dict(num_envs=2, num_steps=4, total_timesteps=64, hidden_sizes=(4,))
    if core != "none":
        how |= dict(core=core, core_size=4)
    config = Config(env=Bytes, **how)
    found = []
    for changes in (False, True):
        a2c_host._programs.cache_clear()
        if changes and other == "nothing is recorded":
            monkeypatch.setattr(a2c_host.sharding, "on_cpu", lambda: False)
        elif changes:
            monkeypatch.setattr(a2c_host, "LARGE", 10)
        state, metrics = a2c.train(config, jax.random.key(0), log_interval=8)
        found.append((state.learner, metrics))
    a2c_host._programs.cache_clear()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4), *found)


@pytest.mark.slow
def test_gymnasium_s_bytes_train_as_the_same_numbers_in_float32():
    found = {}
    for env in (Bytes, InFloats):
        how = dict(num_envs=2, num_steps=4, total_timesteps=64, frame_stack=2, hidden_sizes=(4,))
        config = Config(env=env, **how)
        found[env], _ = a2c.train(config, jax.random.key(0), log_interval=8)
        learners = jax.tree.map(lambda x: x[None], found[env].learner)
        played = evaluation.evaluate(config, learners, jax.random.key(1)[None], 3, greedy=False)
        assert (played.lengths > 0).all()
    assert envs.make(InFloats).encode(np.ones((4, 4, 3), np.float32)).dtype == np.float32
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5),
        *(state.learner for state in found.values()),
    )


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [True, False])
def test_bytes_train_as_the_same_numbers_in_float32(normalize):
    """Two seeds, whose observations an A3C worker packs, too."""
    states, batches = {}, {}
    for dtype in ("uint8", "float32"):
        config = config_of(dtype, normalize_observations=normalize)
        env, network = rollout.make_env_and_network(config)
        state = tiny.init_seeds(config, jax.random.split(jax.random.key(0), 2))
        one = jax.tree.map(lambda x: x[0], state)
        _, batches[dtype] = tiny.collect(config, env, network, one.learner, one.actor)

        def updates(state, config=config):
            return jax.lax.fori_loop(0, 3, lambda _, s: a2c.update(config, s), state)

        states[dtype] = jax.jit(jax.vmap(updates))(state)
        plain = pytrees.plain(states[dtype].actor)
        packed = pytrees.pack(plain)
        jax.tree.map(np.testing.assert_array_equal, pytrees.unpack(packed, plain), plain)
    in_bytes, in_floats = batches["uint8"], batches["float32"]
    for field in ("obs", "final_obs"):
        found, expected = getattr(in_bytes, field), getattr(in_floats, field)
        assert (found.dtype, expected.dtype) == ("uint8", "float32")
        np.testing.assert_allclose(found / np.float32(255), expected, rtol=1e-6)
    assert len(np.unique(in_bytes.obs)) > 16
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
        (states["uint8"].learner, states["uint8"].row),
        (states["float32"].learner, states["float32"].row),
    )


@pytest.mark.slow
def test_evaluations_and_policies_take_either():
    found = {}
    for dtype in ("uint8", "float32"):
        config = config_of(dtype)
        learners = tiny.init_seeds(config, jax.random.split(jax.random.key(0), 2)).learner
        keys = jax.random.split(jax.random.key(1), 2)
        played = evaluation.evaluate(config, learners, keys, 8, greedy=False)
        found[dtype] = played
        learner = jax.tree.map(lambda x: x[0], learners)
        # Large weights: images differ in their actions.
        learner = learner._replace(params=jax.tree.map(lambda x: 50 * x, learner.params))
        policy = evaluation.policy(config, learner, greedy=True)
        images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
        encoded = images / np.float32(255)
        actions = policy(encoded)
        assert 0 < np.mean(actions) < 1
        np.testing.assert_array_equal(policy(encoded.tolist()), actions)
        if dtype == "uint8":
            np.testing.assert_array_equal(policy(images), actions)
            np.testing.assert_array_equal(policy(jnp.asarray(images[3])), actions[3])
    jax.tree.map(np.testing.assert_array_equal, found["uint8"], found["float32"])


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_float32_observations_is_resumed_to_the_same_bits(tmp_path):
    """As earlier versions saved them."""
    small = dict(env="probes:Picture", network="mlp", total_timesteps=320, eval_every=160)
    assert train(tmp_path / "undisturbed", **small).status == "completed"
    with pytest.MonkeyPatch.context() as patch:
        stop_at_update(patch, 9)
        assert train(tmp_path / "stopped", **small).status == "interrupted"
    path = checkpoints.folder(tmp_path / "stopped", checkpoints.existing(tmp_path / "stopped")[-1])
    manifest, trees = checkpoints.load(path)
    obs = trees["state"]["actor/obs"]
    assert obs.dtype == np.uint8
    trees["state"]["actor/obs"] = obs * np.float32(1 / 255)
    facts = {n: x for n, x in manifest.items() if n not in ("format", "files", "sha256")}
    for file in contents(path):
        file.unlink()
    path.rmdir()
    checkpoints.write(path, trees, facts)
    rljax.resume(tmp_path / "stopped", quiet=True)
    assert results(tmp_path / "stopped") == results(tmp_path / "undisturbed")


def test_every_byte_is_found_again():
    every = np.arange(256, dtype=np.uint8)
    arrays = {"actors/obs": every * np.float32(1 / 255)}
    found = compatibility.state(arrays, Config(), Numbers((), 1 / 255, "uint8"))["actors/obs"]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, every)
    kept = compatibility.state(arrays, Config(), Numbers((), 1 / 255))["actors/obs"]
    np.testing.assert_array_equal(kept, arrays["actors/obs"])
