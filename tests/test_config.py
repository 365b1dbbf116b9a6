"""The config: what it refuses, its presets, and its life as a pytree."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rljax.types  # noqa: F401  (registers Config as a pytree)
from rljax.config import FLOAT_FIELDS, Config
from rljax.presets import PRESETS, preset

OUT_OF_RANGE = [
    ("total_timesteps", 0),
    ("num_envs", 0),
    ("num_steps", -1),
    ("hidden_sizes", (64, 0)),
    ("gamma", 1.01),
    ("gamma", -0.1),
    ("gae_lambda", 2),
    ("rmsprop_decay", np.float32(1.5)),
    ("learning_rate", float("nan")),
    ("learning_rate", -1e-3),
    ("learning_rate", float("inf")),
    ("ent_coef", -0.01),
    ("vf_coef", float("nan")),
    ("optimizer_eps", 0.0),
    ("max_grad_norm", 0.0),
    ("max_grad_norm", float("nan")),
    ("log_std_init", float("-inf")),
    ("gamma", np.array([0.9, 1.5])),  # two configs stacked, of which one is wrong
    ("learning_rate", jnp.array([jnp.nan, 1e-3])),
]
WRONG_TYPE = [
    ("num_envs", 16.0),
    ("num_steps", "5"),
    ("total_timesteps", True),
    ("gamma", "0.99"),
    ("learning_rate", None),
    ("ent_coef", False),
    ("anneal_lr", 1),
    ("normalize_rewards", "yes"),
    ("hidden_sizes", (64, 32.5)),
    ("hidden_sizes", "64"),
    ("env_kwargs", (("rows", 5, 6),)),
    ("env_params", ("rows",)),
]
MISSPELT = [
    ("optimizer", "rmsprop_pytorch", "rmsprop_torch"),
    ("optimizer", "Adam", "adam"),
    ("activation", "tahn", "tanh"),
    ("loss_reduction", "men", "mean"),
    ("action_bounds", "clipped", "clip"),
]


@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=f"^{name} = ") as error:
        Config(**{name: value}).validate()
    assert str(value) in str(error.value)


@pytest.mark.parametrize(("name", "value"), WRONG_TYPE)
def test_a_value_of_another_type_is_refused_by_name(name, value):
    with pytest.raises(TypeError, match=f"^{name} = "):
        Config(**{name: value}).validate()


@pytest.mark.parametrize(("name", "value", "meant"), MISSPELT)
def test_an_unknown_choice_is_answered_with_the_nearest(name, value, meant):
    with pytest.raises(ValueError, match=f"unknown {name} '{value}': did you mean .*{meant}"):
        Config(**{name: value}).validate()


def test_a_rollout_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match=r"num_envs \* num_steps = 80.*total_timesteps = 79"):
        Config(num_envs=16, num_steps=5, total_timesteps=79).validate()
    Config(num_envs=16, num_steps=5, total_timesteps=80).validate()


def test_the_ends_of_the_ranges_are_allowed():
    edge = Config(
        gamma=1, gae_lambda=0, ent_coef=0, vf_coef=0, learning_rate=0, max_grad_norm=float("inf")
    )
    assert edge.validate() is edge


def test_stacked_and_traced_floats_validate():
    Config(learning_rate=np.array([1e-4, 1e-3]), gamma=jnp.array([0.9, 0.99])).validate()
    assert jax.jit(lambda config: config.validate().gamma)(Config(gamma=0.5)) == 0.5


@pytest.mark.parametrize(("algorithm", "env"), PRESETS)
def test_every_preset_validates(algorithm, env):
    config = preset(algorithm, env).validate()
    assert config.env == (env.replace("NoVel", "") if config.wrappers else env)


@pytest.mark.parametrize("prefix", ["", "gymnax/", "gymnasium/"])
def test_the_preset_of_a_variant_names_its_environment(prefix):
    config = preset("a2c", f"{prefix}CartPoleNoVel-v1")
    assert config.env == f"{prefix}CartPole-v1"
    assert config.wrappers == ("mask_velocity",)
    assert preset("a2c", f"{prefix}CartPole-v1").wrappers == ()


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown a2c preset 'cartpole': did.*CartPole-v1"):
        preset("a2c", "cartpole")


@pytest.mark.parametrize(("total", "num_updates"), [(79, 8), (80, 8), (81, 9)])
def test_a_run_is_rounded_up_to_whole_batches(total, num_updates):
    config = Config(total_timesteps=total, num_envs=5, num_steps=2)
    assert config.batch_size == 10
    assert config.num_updates == num_updates


def test_dicts_and_lists_are_accepted_and_leave_the_config_hashable():
    one = Config(env_kwargs={"rows": 5, "columns": 3}, hidden_sizes=[8, 8])
    other = Config(env_kwargs={"columns": 3, "rows": 5}, hidden_sizes=(8, 8))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Config(env_kwargs={"columns": 4, "rows": 5}, hidden_sizes=(8, 8))
    one.validate()


def test_importing_the_config_loads_neither_jax_nor_flax():
    code = "import sys, rljax, rljax.config; rljax.Config().validate(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "rljax.config" in loaded
    assert not loaded & {"jax", "flax", "optax", "gymnax"}


def test_the_leaves_are_strong_float32():
    leaves = jax.tree.leaves(Config(gamma=1, learning_rate=jnp.asarray(0.1)))
    assert len(leaves) == len(FLOAT_FIELDS)
    types = [jax.typeof(leaf) for leaf in leaves]
    assert {(t.shape, t.dtype.name, t.weak_type) for t in types} == {((), "float32", False)}


def test_numbers_of_every_kind_share_one_trace_and_a_new_size_makes_another():
    traced = []

    @jax.jit
    def gamma_of(config):
        traced.append(config.num_envs)
        return config.gamma

    for number in (
        0.1,
        np.float32(0.1),
        np.float64(0.1),
        jnp.float32(0.1),
        jnp.asarray(0.1),
        np.array(0.1),
        1,
        jnp.int32(1),
    ):
        assert gamma_of(Config(gamma=number)) == np.float32(number)
    assert traced == [16]
    gamma_of(Config(num_envs=3))
    assert traced == [16, 3]


def test_flattening_and_back_gives_the_same_config():
    config = Config(env="Catch-bsuite", env_kwargs={"rows": 5}, gamma=0.25, hidden_sizes=(8,))
    leaves, structure = jax.tree.flatten(config)
    back = structure.unflatten(leaves)
    assert isinstance(back, Config)
    for name, value in vars(config).items():
        same = np.float32(value) if name in FLOAT_FIELDS else value
        assert getattr(back, name) == same, name


def test_stacked_configs_vmap():
    configs = [Config(gamma=gamma, ent_coef=coef) for gamma, coef in ((0.5, 1), (0.75, 2))]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *configs)
    found = jax.vmap(lambda config: config.gamma * config.num_envs + config.ent_coef)(stacked)
    np.testing.assert_array_equal(found, [0.5 * 16 + 1, 0.75 * 16 + 2])


@pytest.mark.parametrize("name", ["env_params", "env_kwargs"])
def test_arrays_of_parameters_are_refused_where_they_are_given(name):
    """JAX would say that it cannot hash them, or map over them, wherever the config goes."""
    told = f"{name}: limit = .*: must be a value and no array; it is static, .* axis {name}.limit"
    with pytest.raises(TypeError, match=told):
        Config(**{name: {"limit": np.array([[10, 20]])}})
    with pytest.raises(TypeError, match=told):
        jax.vmap(lambda limit: Config(**{name: {"limit": limit}}).gamma)(np.array([10, 20]))


def test_values_that_python_takes_for_equal_are_others_to_an_environment():
    one, true, real = (Config(env_kwargs={"size": [size]}) for size in (1, True, 1.0))
    assert one == Config(env_kwargs={"size": [1]})
    assert len({one, true, real}) == 3
    assert jax.tree.structure(one) != jax.tree.structure(true)
