"""What is particular to Craftax, XLand-MiniGrid and Octax: settings, files and what they report."""

import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import Config, envs, learner, rollout
from rljax.envs import suites


def load(name):
    pytest.importorskip(name)
    return suites.load(name)


@pytest.mark.slow
def test_craftaxs_achievements_are_reported_at_the_end_of_an_episode():
    world = load("craftax").make("Craftax-Classic-Symbolic-v1", map_size=(32, 32))
    params = world.default_params.replace(max_timesteps=2)
    _, state = jax.jit(world.reset_env)(jax.random.key(0), params)
    assert state.map.shape == (32, 32)
    state = state.replace(achievements=state.achievements.at[0].set(True))
    step = jax.jit(world.step_env)
    found = []
    for _ in range(2):
        _, state, *_, info = step(jax.random.key(0), state, jnp.int32(0), params)
        found.append((info["Achievements/collect_wood"], info["Achievements/place_table"]))
    assert found == [(0, 0), (100, 0)]
    assert set(info) == {"score", *(name for name in info if name.startswith("Achievements/"))}
    assert len(info) == 1 + 22


@pytest.mark.parametrize("game", ["craftax_classic", "craftax"])
def test_craftax_tells_where_it_cannot_keep_its_textures(game, monkeypatch):
    load("craftax")
    constants = importlib.import_module(f"craftax.{game}.constants")
    monkeypatch.setattr(constants, "TEXTURE_CACHE_FILE", "/nowhere/textures")
    name = "Craftax-Classic-Pixels-v1" if "classic" in game else "Craftax-Pixels-v1"
    with pytest.raises(ValueError, match="must write its textures to /nowhere/textures once"):
        envs.make(f"craftax/{name}")


@pytest.mark.slow
def test_craftaxs_pixels(tmp_path, monkeypatch, capsys):
    load("craftax")
    constants = importlib.import_module("craftax.craftax_classic.constants")
    monkeypatch.setattr(constants, "TEXTURE_CACHE_FILE", str(tmp_path / "textures.pbz2"))
    world = suites.load("craftax").make("Craftax-Classic-Pixels-v1")
    assert not capsys.readouterr().out
    obs, _ = jax.jit(world.reset_env)(jax.random.key(0), world.default_params)
    assert (obs.shape, obs.dtype) == ((63, 63, 3), jnp.float32)
    assert 0 <= obs.min() < obs.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("reset", ["cached", "fresh"])
def test_a_rollout_keeps_no_states_of_environments_whose_resets_are_cached(reset):
    """Of each step; fresh ones are drawn for all steps at once."""
    load("craftax")
    config = Config(env="craftax/Craftax-Classic-Symbolic-v1", num_envs=2, num_steps=8, reset=reset)
    env, network = rollout.make_env_and_network(config)
    key = jax.random.key(0)
    learning = jax.eval_shape(partial(learner.init, config, network, env.spec), key)
    actor = jax.eval_shape(partial(rollout.init, env, network, config.num_envs), key)
    program = jax.make_jaxpr(partial(rollout.collect, config, env, network))(learning, actor)
    kept = list(kept_of_steps(program.jaxpr, config.num_steps))
    assert env.spec.obs_shape in [shape[-1:] for shape in kept]
    world = jax.eval_shape(env.mdp.reset, key, 0)[0].map.shape
    assert (world in [shape[-2:] for shape in kept]) == (reset == "fresh")


def kept_of_steps(program, num_steps):
    """The shapes of what the scans in a program give for each of `num_steps` steps, or take."""
    for equation in program.eqns:
        if equation.primitive.name == "scan" and equation.params["length"] == num_steps:
            shapes = [x.aval.shape for x in (*equation.invars, *equation.outvars)]
            yield from (shape[1:] for shape in shapes if shape[:1] == (num_steps,))
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from kept_of_steps(inner, num_steps)


@pytest.fixture
def rulesets(tmp_path):
    """A file of two: the goal is to hold the red ball, or the blue square; both lie about."""
    xminigrid = pytest.importorskip("xminigrid")
    from xminigrid.core.goals import AgentHoldGoal
    from xminigrid.core.rules import EmptyRule

    tiles = jnp.array([[3, 1], [4, 3]], jnp.uint8)
    content = {
        "goals": jnp.stack([AgentHoldGoal(tile=tile).encode() for tile in tiles]),
        "rules": jnp.stack([EmptyRule().encode()[None]] * 2),
        "init_tiles": jnp.stack([tiles] * 2),
        "num_rules": jnp.ones(2, jnp.int32),
    }
    xminigrid.benchmarks.save_bz2_pickle(content, str(tmp_path / "rulesets"))
    return str(tmp_path / "rulesets"), np.asarray(content["goals"])


XLAND = "XLand-MiniGrid-R1-9x9"


def test_xlands_rulesets_are_drawn_at_each_reset_or_one_is_chosen(rulesets):
    path, goals = rulesets

    def goals_of(**kwargs):
        source = load("xminigrid").make(XLAND, benchmark=path, **kwargs)
        reset = jax.jit(jax.vmap(source.reset_env, (0, None)))
        obs, state = reset(jax.random.split(jax.random.key(0), 16), source.default_params)
        assert obs.shape == (16, 5, 5, 25)
        return np.asarray(state.state.goal_encoding)

    assert {tuple(goal) for goal in goals_of()} == {tuple(goal) for goal in goals}
    assert np.array_equal(goals_of(ruleset=1), np.tile(goals[1], (16, 1)))
    with pytest.raises(ValueError, match="ruleset = 2: must be from 0 to 1"):
        envs.make(f"xminigrid/{XLAND}", {"benchmark": path, "ruleset": 2})


def test_xland_tells_where_it_cannot_download(tmp_path, monkeypatch):
    xminigrid = pytest.importorskip("xminigrid")

    def urlretrieve(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(xminigrid.benchmarks.urllib.request, "urlretrieve", urlretrieve)
    monkeypatch.setattr(xminigrid.benchmarks, "DATA_PATH", str(tmp_path))
    where = rf"must be a file, or be downloaded \(trivial-21k, .*\) to {tmp_path}"
    with pytest.raises(ValueError, match=f"benchmark = 'trivial-21k': {where}: no route") as error:
        envs.make(f"xminigrid/{XLAND}", {"benchmark": "trivial-21k"})
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=f"benchmark = None: {where}"):
        envs.make(f"xminigrid/{XLAND}")


def test_octaxs_levels_are_games_of_their_own():
    octax = load("octax")
    ids = octax.ids()
    assert {"pong", "cavern1", "cavern2", "space_flight10"} <= set(ids)
    assert "cavern" not in ids
    assert ids.index("space_flight9") + 1 == ids.index("space_flight10")
    first, second = (octax.make(f"target_shooter{level}").game for level in (1, 2))
    assert not np.array_equal(first.cached_reset_state.memory, second.cached_reset_state.memory)


@pytest.mark.parametrize(
    "env", ["craftax/Craftax-Classic-Symbolic-v1", "octax/pong", "xminigrid/MiniGrid-Empty-5x5"]
)
def test_an_argument_that_an_environment_does_not_take_is_refused(env):
    load(env.partition("/")[0])
    with pytest.raises(TypeError, match=f"env = '{env}': .*unexpected keyword argument 'frames'"):
        envs.make(env, {"frames": 3})


@pytest.mark.slow
def test_time_limits_of_xminigrid_may_differ_between_environments():
    load("xminigrid")
    kwargs, limits = {"view_size": 3}, (("max_steps", (2, 3)),)
    env = envs.make("xminigrid/MiniGrid-Empty-5x5", kwargs, limits)
    assert env.spec.obs_shape == (3, 3, 25)

    @jax.jit
    def truncated(key):
        states, _ = jax.vmap(env.reset)(jax.random.split(key, 2), jnp.arange(2))
        states, chance = env.draw(key, states, (6, 2))
        turn = jnp.ones(2, jnp.int32)
        return jax.lax.scan(lambda s, x: jax.vmap(env.step)(x, s, turn), states, chance)[
            1
        ].truncated

    expected = [[0, 1, 0, 1, 0, 1], [0, 0, 1, 0, 0, 1]]
    np.testing.assert_array_equal(truncated(jax.random.key(0)).T, expected)


@pytest.mark.parametrize(
    ("env", "nearest"),
    [
        ("craftax/Craftax-Classic-v1", "Craftax-Classic-Pixels-v1"),
        ("xminigrid/MiniGrid-Empty-9x9", "MiniGrid-Empty-8x8"),
        ("octax/pogn", "pong"),
    ],
)
def test_an_unknown_id_names_the_nearest(env, nearest):
    load(env.partition("/")[0])
    with pytest.raises(ValueError, match=f"did you mean .*{nearest}"):
        envs.make(env)
