"""What is particular to suites written in JAX: their actions, masks, observations and info."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import envs
from rljax.envs import suites
from rljax.envs.spaces import Discrete, Parts


def load(suite):
    pytest.importorskip(suite)
    return suites.load(suite)


def first(source, seed=0):
    return jax.jit(lambda key: source.reset_env(key, None))(jax.random.key(seed))


# pgx


def test_actions_of_pgx_stick_with_a_chance():
    game = load("pgx").make("minatar-breakout", sticky_action_prob=0.5)
    _, state = first(game)
    keys = jax.random.split(jax.random.key(1), 100)
    step = jax.jit(jax.vmap(game.step_env, in_axes=(0, None, None, None)))
    _, after, *_ = step(keys, state, jnp.int32(1), None)
    moved = after._pos != state._pos  # the action before, at the start, is to stay
    assert 30 < moved.sum() < 70


def test_actions_of_pgx_stick_by_default():
    assert load("pgx").make("minatar-asterix").game.sticky_action_prob == 0.1


def test_a_mask_of_pgx_is_that_of_the_game():
    game = load("pgx").make("2048")
    _, state = first(game)
    np.testing.assert_array_equal(game.action_mask(state, None), state.legal_action_mask)
    assert not hasattr(load("pgx").make("minatar-freeway"), "action_mask")  # where all are valid


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ("pgx/chess", "a game of several players"),
        ("jumanji/Connector-v3", "several agents"),
        ("jumanji/MultiCVRP-v0", "several agents"),
    ],
)
def test_what_several_play_is_refused(env, why):
    pytest.importorskip(env.partition("/")[0])
    with pytest.raises(ValueError, match=f"^env = '{env}': .*{why}"):
        envs.make(env)


# Jumanji


def test_a_mask_of_combinations_makes_one_action():
    game = load("jumanji").make("Minesweeper-v0")
    board, state = first(game)
    assert set(board) == {"board", "num_mines"}
    assert game.action_space().n == 100
    assert state.mask.shape == (100,)
    assert state.mask.all()

    step = jax.jit(lambda state, action: game.step_env(jax.random.key(0), state, action, None))
    seen, after, *_ = step(state, jnp.int32(37))
    opened = seen["board"] != board["board"]
    assert opened[3, 7]
    assert opened.sum() == 1
    np.testing.assert_array_equal(after.mask, np.arange(100) != 37)


def test_actions_that_are_masked_apart_stay_apart():
    game = load("jumanji").make("Cleaner-v0", time_limit=9)
    assert game.action_space().nvec.tolist() == [4, 4, 4]
    assert first(game)[1].mask.shape == (3, 4)


def test_a_mask_of_jumanji_never_forbids_all():
    """Snake's does where the snake is shut in, until any action ends the episode."""
    game = load("jumanji").make("Snake-v1")
    _, timestep = game.source.reset(jax.random.key(0))
    none = timestep.observation._replace(action_mask=jnp.zeros(4, bool))
    assert game._split(none)[1].all()
    some = timestep.observation._replace(action_mask=jnp.arange(4) == 2)
    np.testing.assert_array_equal(game._split(some)[1], np.arange(4) == 2)


def test_several_arrays_of_jumanji_are_a_dict():
    env = envs_of("jumanji/Maze-v0")
    assert isinstance(env.spec.observation, Parts)
    assert env.spec.observation.names == ("agent_position", "target_position", "walls")
    assert env.spec.obs_shape == (2 + 2 + 100,)


def test_scalars_that_jumanji_reports_are_in_info():
    game = load("jumanji").make("Game2048-v1")
    _, state = first(game)
    *_, info = game.step_env(jax.random.key(0), state, jnp.argmax(state.mask), None)
    assert float(info["highest_tile"]) >= 2


# Brax


def test_brax_is_truncated_by_a_parameter_alone():
    env = envs_of("brax/fast", env_params=(("episode_length", 3),))
    state, _ = env.mdp.reset(jax.random.key(0), 0)
    cut = []
    for _ in range(3):
        state, step = env.mdp.step(jax.random.key(0), state, jnp.ones(1))
        cut.append(bool(step.truncated))
        assert not step.terminated
    assert cut == [False, False, True]


@pytest.mark.slow
def test_brax_reports_its_metrics():
    world = load("brax").make("reacher")
    params = world.default_params
    _, state = jax.jit(world.reset_env)(jax.random.key(0), params)
    args = jax.random.key(0), state, jnp.zeros(2), params
    *_, info = jax.eval_shape(world.step_env, *args)
    assert {"reward_dist", "reward_ctrl"} <= set(info)
    assert all(x.shape == () for x in info.values())


# All


def envs_of(env, **settings):
    pytest.importorskip(env.partition("/")[0])
    return envs.make(env, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["brax", "jumanji", "octax", "pgx", "xminigrid"])
def test_every_environment_is_made(suite):
    load(suite)
    # Swimmer of brax 0.14.2 calls a function as JAX had it before; Sokoban's levels and XLand's
    # rulesets are downloaded.
    names = set(suites.ids(suite)) - {"brax/swimmer", "jumanji/Sokoban-v0"}
    for name in sorted(name for name in names if "XLand" not in name):
        with jax.numpy_rank_promotion("allow"):
            space = envs.make(name).spec.action_space
        assert not isinstance(space, Discrete) or space.n > 1


def test_a_suites_constructor_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match=r"^env = 'jumanji/Snake-v1': .*'size'"):
        envs_of("jumanji/Snake-v1", env_kwargs=(("size", 3),))


def test_a_parameter_that_a_suite_lacks_is_refused():
    with pytest.raises(ValueError, match="did you mean episode_length"):
        envs_of("brax/fast", env_params=(("episode_lenth", 3),))
