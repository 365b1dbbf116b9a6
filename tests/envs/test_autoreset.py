"""Auto-reset with cached first states, and parameters that vary between episodes."""

import dataclasses
import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import small_runs
import tiny
from gymnax.environments.classic_control.cartpole import EnvParams

import rljax
from rljax import Config, a2c, a3c, envs, evaluation, rollout
from rljax.config import WorkerConfig
from rljax.envs import autoreset
from rljax.utils import seeds

ENVS, STEPS = 6, 8


class Numbered(probes.Probe):
    """Two steps; the mark of all observations is the number that the reset drew."""

    def reset_env(self, key, params):
        mark = jax.random.uniform(key)
        return mark[None], probes.State(time=jnp.int32(0), mark=mark)

    def rule(self, state, action):
        return state.mark, state.mark, state.time == 1


class Costly(Numbered):
    costly_reset = True


def marks(config, rollouts):
    """[rollouts * T, B] what is observed."""
    env, network = rollout.make_env_and_network(config)
    learner = tiny.init_learner(config, network, env.spec, jax.random.key(0))
    actor, found = tiny.init_actor(env, network, config.num_envs, jax.random.key(1)), []
    for _ in range(rollouts):
        actor, batch = tiny.collect(config, env, network, learner, actor)
        found.append(np.asarray(batch.obs[..., 0]))
    return np.concatenate(found)


def config_of(reset, **settings):
    given = dict(num_envs=ENVS, num_steps=STEPS, hidden_sizes=(4,), **settings)
    return Config(env="test_autoreset:Numbered", reset=reset, **given)


@pytest.mark.parametrize("num_steps", [8, 32, 200])
def test_cached_first_states_are_drawn_anew_in_turn(num_steps):
    """Each environment begins alike for as many rollouts as have the steps of a renewal, less than
    one rollout; no two environments ever begin alike."""
    period = -(-autoreset.STEPS_PER_RESET // num_steps)
    config = dataclasses.replace(config_of("cached"), num_steps=num_steps)
    found = marks(config, 2 * period + 1).reshape(2 * period + 1, num_steps, ENVS)
    assert len(np.unique(found[0, 0])) == ENVS
    found = found[:, 2:]  # a rollout begins with an episode of the one before
    for env in range(ENVS):
        begins = found[:, :, env]
        assert (begins == begins[:, :1]).all()
        changed = np.flatnonzero(begins[1:, 0] != begins[:-1, 0]) + 1
        expected = [r for r in range(1, 2 * period + 1) if (r + env) % period == 0]
        assert changed.tolist() == expected
    first = np.unique(found[:, 0])
    assert len(first) == sum(len(np.unique(found[:, 0, env])) for env in range(ENVS))


def test_fresh_first_states_are_all_others():
    found = marks(config_of("fresh"), 3)
    assert len(np.unique(found)) == ENVS * 3 * STEPS / 2
    np.testing.assert_array_equal(found[::2], found[1::2])


def test_auto_asks_the_environment():
    for kind, name in ((Costly, "cached"), (Numbered, "fresh")):
        env, like = envs.make(kind()), envs.make(kind(), reset=name)
        states = [jax.eval_shape(jax.vmap(one.reset), seeds.keys([0]))[0] for one in (env, like)]
        assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert isinstance(jax.eval_shape(envs.make(Costly()).reset, seeds.keys([0])[0])[0], tuple)


@pytest.mark.slow
def test_seeds_and_devices_change_nothing_of_cached_resets():
    """But for rounding; where an update renews none, seeds still skip it together."""
    config = dataclasses.replace(config_of("cached"), num_envs=4, total_timesteps=320, num_steps=4)

    def trained(numbers, large=seeds.LARGE):
        with mock.patch.object(seeds, "LARGE", large):
            *_, (states, _) = a2c.chunks(config, seeds.keys(numbers))
        return jax.device_get(states)

    both, alone, sharded = trained([3, 4]), trained([4]), trained([4], large=1.0)
    for x, y, z in zip(
        *(jax.tree.leaves((s.actor.env_state, s.actor.obs)) for s in (both, alone, sharded))
    ):
        np.testing.assert_allclose(x[1], y[0], rtol=1e-5)
        np.testing.assert_allclose(z, y, rtol=1e-5)


@pytest.mark.slow
def test_a_rollout_keeps_no_state_of_the_environment():
    """Cached, it needs memory for the states of the environments alone; fresh, for a first state
    of every step too."""

    class Large(Numbered):
        def reset_env(self, key, params):
            obs, state = super().reset_env(key, params)
            return obs, Ballast(**vars(state), ballast=jax.random.normal(key, (50_000,)))

        def step_env(self, key, state, action, params):
            obs, after, *answer = super().step_env(key, state, action, params)
            return obs, Ballast(**vars(after), ballast=state.ballast + 1), *answer

    def bytes_needed(reset, num_steps):
        config = dataclasses.replace(config_of(reset), env=Large(), num_steps=num_steps)
        state = jax.eval_shape(a2c.init, config, jax.random.key(0))
        program = jax.jit(a2c.update).lower(config, state).compile()
        return program.memory_analysis().temp_size_in_bytes

    one_state = ENVS * 50_000 * 4
    assert bytes_needed("cached", 256) - bytes_needed("cached", 128) < one_state
    assert bytes_needed("fresh", 256) - bytes_needed("fresh", 128) > 100 * one_state


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Ballast:
    time: jax.Array
    mark: jax.Array
    ballast: jax.Array


def lengths(key):
    return {"length": jax.random.uniform(key, minval=0.25, maxval=1.0)}


def all_parameters(key):
    return EnvParams(length=jax.random.uniform(key, minval=0.25, maxval=1.0))


def played(env, num_envs, steps=60):
    """(obs [T, B], states [T, B], ends [T, B]) with action 1 alone: episodes of some 10 steps."""

    def step(states, randomness):
        before = states
        states, answer = jax.vmap(env.step)(randomness, states, jnp.ones(num_envs, jnp.int32))
        return states, (before, answer)

    @jax.jit
    def run(key):
        index = jnp.arange(num_envs, dtype=jnp.int32)
        states, obs = jax.vmap(env.reset)(jax.random.split(key, num_envs), index)
        states, randomness = env.draw(key, states, (steps, num_envs))
        return obs, *jax.lax.scan(step, states, randomness)[1]

    return run(jax.random.key(0))


@pytest.mark.parametrize("reset", ["fresh", "cached"])
def test_environments_have_parameters_of_their_own(reset):
    """Environment i moves as one that is made with its parameter alone, through all episodes."""
    given = (0.25, 0.5, 1.0)
    env = envs.make("CartPole-v1", env_params={"length": given}, reset=reset)
    obs, _, steps = played(env, 4)
    assert (steps.terminated.sum(axis=0) >= 3).all()
    seen = np.concatenate([obs[None], steps.obs[:-1]])
    for i in range(4):
        alone = envs.make("CartPole-v1", env_params={"length": given[i % 3]})
        state, _ = alone.mdp.reset(jax.random.key(0))
        for t in range(12):
            now = dataclasses.replace(
                state, **dict(zip(("x", "x_dot", "theta", "theta_dot"), seen[t, i]))
            )
            _, answer = jax.jit(alone.mdp.step)(jax.random.key(0), now, 1)
            np.testing.assert_allclose(steps.final_obs[t, i], answer.final_obs, rtol=1e-5)


@pytest.mark.parametrize("function", [lengths, all_parameters, "test_autoreset:lengths"])
def test_parameters_are_drawn_at_each_reset(function):
    env = envs.make("CartPole-v1", env_params=function)
    _, states, steps = played(env, 4)
    drawn, done = np.asarray(states.params["length"]), np.asarray(steps.terminated)
    assert drawn.min() >= 0.25
    assert drawn.max() <= 1.0
    changed = drawn[1:] != drawn[:-1]
    np.testing.assert_array_equal(changed, done[:-1])
    assert len(np.unique(drawn)) == 4 + done[:-1].sum()


@pytest.mark.slow
def test_workers_count_their_environments_together():
    config = Config(env="CartPole-v1", env_params={"length": (0.25, 0.5, 1.0)}, hidden_sizes=(4,))
    workers = WorkerConfig(num_workers=2, envs_per_worker=2, lockstep=True)
    config = dataclasses.replace(config, total_timesteps=80, num_envs=2)
    state = a3c.init(config, workers, jax.random.key(0))
    assert state.actors.env_state.index.tolist() == [[0, 1], [2, 3]]
    assert state.actors.env_state.state.params["length"].tolist() == [[0.25, 0.5], [1.0, 0.25]]
    state, _ = a3c.train(config, workers, jax.random.key(0))
    assert state.actors.env_state.index.tolist() == [[0, 1], [2, 3]]


def test_an_evaluation_is_of_all_parameters():
    given = {"max_steps_in_episode": np.array([5, 7])}  # the pole takes longer to fall
    config = Config(env="CartPole-v1", env_params=given, hidden_sizes=(4,))
    env, network = rollout.make_env_and_network(config)
    learners = tiny.init_learners(config, network, env.spec, seeds.keys([0]))
    found = evaluation.evaluate(config, learners, seeds.keys([1]), 4, False)
    assert found.lengths.tolist() == [[5, 7, 5, 7]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        dict(env="test_autoreset:Costly"),
        dict(env="CartPole-v1", env_params={"length": (0.25, 1.0)}),
        dict(env="CartPole-v1", env_params=lengths, reset="cached"),
    ],
    ids=["cached", "by index", "drawn and cached"],
)
def test_a_run_is_recorded_and_resumed_to_the_same_bits(settings, tmp_path, undrawn):
    more = dict(**settings, total_timesteps=800, eval_every=400)
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    small_runs.train(straight, **more)
    record = json.loads((straight / "config.json").read_text())["config"]
    given = settings.get("env_params", {})
    recorded = {"length": {"tuple": [0.25, 1.0]}} if isinstance(given, dict) and given else given
    recorded = "test_autoreset:lengths" if given is lengths else recorded
    assert (record["env_params"], record["reset"]) == (recorded, settings.get("reset", "auto"))
    with pytest.MonkeyPatch.context() as patch:
        small_runs.stop_at_update(patch, 26)
        assert small_runs.train(halved, **more).status == "interrupted"
    assert rljax.resume(halved).status == "completed"
    assert small_runs.results(halved) == small_runs.results(straight)


class ResetsItself(probes.Probe):
    def step(self, key, state, action, params):
        obs, state, reward, terminated, _ = self.step_env(key, state, action, params)
        return obs, state, reward, terminated, False, {"final_observation": obs}

    def rule(self, state, action):
        return 0.0, 0.0, False


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"reset": "cachd"}, ValueError, "did you mean cached?"),
        (
            {"env": "gymnasium/CartPole-v1", "reset": "cached"},
            ValueError,
            "reset = 'cached': Python steps 'gymnasium/CartPole-v1'",
        ),
        ({"env": "test_autoreset:ResetsItself", "reset": "cached"}, ValueError, "resets itself"),
        (
            {"env": "test_autoreset:ResetsItself", "env_params": lambda key: {}},
            ValueError,
            "env_params drawn at each reset: ResetsItself resets itself",
        ),
        ({"env_params": {"lenght": (1.0, 2.0)}}, ValueError, "did you mean length?"),
        ({"env_params": {"length": ()}}, TypeError, "or a tuple of numbers"),
        ({"env_params": {"length": (1.0, "a")}}, TypeError, "or a tuple of numbers"),
        ({"env_params": {"max_steps_in_episode": 1.5}}, TypeError, "must be a whole number"),
        ({"env_params": {"max_steps_in_episode": (5, 7.5)}}, TypeError, "must be a whole number"),
        ({"env_params": lambda key: {"lenght": 1.0}}, ValueError, "did you mean length?"),
        ({"env_params": lambda key: 1.0}, TypeError, "must give a dict or EnvParams, not float"),
        ({"env_params": lambda key: {"length": jnp.ones(3)}}, TypeError, "must be a number"),
        ({"env_params": lambda key: {"length": (0.3, 0.4)}}, TypeError, "must be a number"),
        ({"env_params": lambda key: key.nothing}, ValueError, "AttributeError"),
        ({"env_params": "<function mine at 0x7f>"}, ValueError, "give the object again"),
        ({"env_params": "nowhere:lengths"}, ValueError, "No module named 'nowhere'"),
        ({"env_params": "test_autoreset:STEPS"}, TypeError, "must be a function"),
        (
            {"env": "gymnasium/CartPole-v1", "env_params": lengths},
            ValueError,
            "gymnasium's environments have none",
        ),
    ],
)
def test_bad_input(settings, kind, message):
    with pytest.raises(kind) as error:
        rollout.make_env_and_network(Config(**settings).validate())
    assert message in str(error.value)
    assert "\n" not in str(error.value)
