"""Environments: from an id or an object to pure functions, and what a step means."""

import importlib
import types
from functools import partial

import chance
import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from gymnax.environments import spaces
from gymnax.environments.bsuite.catch import Catch
from gymnax.environments.classic_control.cartpole import CartPole
from gymnax.environments.environment import Environment
from gymnax.wrappers.purerl import StickyActionWrapper

from rljax import envs
from rljax.envs.interface import EnvSpec, Step
from rljax.envs.spaces import Box, Discrete, Numbers

BUILT_IN = [name for name in gymnax.registered_envs if name != "MNISTBandit-bsuite"]
NUM_ENVS = 3


def reset_and_steps(env, key):
    """(obs at the start, Step [2, B] of zero actions), in a scan, as training does it."""
    space = env.spec.action_space
    action = jnp.zeros((NUM_ENVS, *getattr(space, "shape", ())))
    action = action.astype(jnp.int32) if isinstance(space, Discrete) else action

    def step(state, key):
        return jax.vmap(env.step)(chance.of_all(env, key, state, NUM_ENVS), state, action)

    key, key_reset = jax.random.split(key)
    state, obs = jax.vmap(env.reset)(jax.random.split(key_reset, NUM_ENVS))
    return obs, jax.lax.scan(step, state, jax.random.split(key, 2))[1]


def assert_agrees(spec, obs, steps):
    """Shapes and dtypes are those that the spec promises."""
    shape = (NUM_ENVS, *spec.obs_shape)
    assert (obs.shape, obs.dtype) == (shape, "float32")
    shapes = Step((2, *shape), (2, NUM_ENVS), (2, NUM_ENVS), (2, NUM_ENVS), (2, *shape))
    dtypes = Step("float32", "float32", "bool", "bool", "float32")
    assert jax.tree.map(np.shape, steps) == shapes
    assert jax.tree.map(lambda x: str(x.dtype), steps) == dtypes


# Every environment of gymnax


@pytest.mark.parametrize("name", ["FourRooms-misc", "MetaMaze-misc", "Reacher-misc", "CartPole-v1"])
def test_an_environment_is_made_inside_a_jitted_function(name):
    """The constructors of some compute with values, which tracing takes away."""
    obs = jax.eval_shape(lambda key: envs.make(name).reset(key)[1], jax.random.key(0))
    assert obs.shape == envs.make(name).spec.obs_shape


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_gymnax_environment_agrees_with_its_spec(name):
    # Swimmer broadcasts vectors against matrices.
    with jax.numpy_rank_promotion("allow" if name == "Swimmer-misc" else "raise"):
        env = envs.make(name)
        obs, steps = jax.eval_shape(partial(reset_and_steps, env), jax.random.key(0))
    assert_agrees(env.spec, obs, steps)


@pytest.mark.parametrize(
    ("name", "obs_shape", "space"),
    [
        ("CartPole-v1", (4,), Discrete(2)),
        ("Catch-bsuite", (10, 5), Discrete(3)),
        ("FourRooms-misc", (4,), Discrete(4)),
        ("Pendulum-v1", (3,), Box((1,), (-2.0,), (2.0,))),
    ],
)
def test_real_steps_agree_with_the_spec(name, obs_shape, space):
    env = envs.make(name)
    assert env.spec == EnvSpec(name, Numbers(obs_shape), space)
    assert hash(env.spec) == hash(envs.make(name).spec)
    obs, steps = jax.jit(partial(reset_and_steps, env))(jax.random.key(0))
    assert_agrees(env.spec, obs, steps)
    assert np.isfinite(steps.final_obs).all()


def test_mnist_is_refused():
    with pytest.raises(ValueError, match=r"MNISTBandit-bsuite.*downloads"):
        envs.make("MNISTBandit-bsuite")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Cartpole-v0", "CartPole-v1"), ("gymnax/pong-mics", "Pong-misc")],
)
def test_an_unknown_id_is_answered_with_the_nearest(name, meant):
    with pytest.raises(ValueError, match=f"unknown environment .*did you mean .*{meant}"):
        envs.make(name)


def test_the_prefix_names_the_same_environment():
    assert envs.make("gymnax/CartPole-v1").spec[1:] == envs.make("CartPole-v1").spec[1:]


def test_integer_rewards_come_out_as_float32():
    source, params = gymnax.make("UmbrellaChain-bsuite")
    key = jax.random.key(0)
    _, state = jax.eval_shape(source.reset, key, params)
    assert jax.eval_shape(source.step, key, state, 0, params)[2].dtype == "int32"
    rewards = first_steps(envs.make("UmbrellaChain-bsuite"), [0, 1]).reward
    assert rewards.dtype == "float32"
    np.testing.assert_array_equal(np.abs(rewards), [1, 1])


def first_steps(env, actions):
    """What one episode's start answers to each of some actions: Step [A, ...]."""
    key = jax.random.key(0)

    @jax.jit
    @jax.vmap
    def run(action):
        state, _ = env.reset(key)
        return env.step(chance.of_one(env, key, state), state, action)[1]

    return run(np.array(actions))


# Keyword arguments and parameters


def test_keyword_arguments_of_the_constructor_take_effect():
    assert envs.make("Catch-bsuite", (("rows", 6), ("columns", 3))).spec.obs_shape == (6, 3)
    assert envs.make(Catch, (("rows", 6),)).spec.obs_shape == (6, 5)


@pytest.mark.parametrize("env", ["Catch-bsuite", Catch], ids=["id", "class"])
def test_a_wrong_keyword_argument_is_refused_by_name(env):
    with pytest.raises(TypeError, match="rowz"):
        envs.make(env, (("rowz", 6),))


def test_keyword_arguments_for_a_made_environment_are_refused():
    with pytest.raises(TypeError, match=r"env_kwargs = {'rows': 6}.*already made"):
        envs.make(Catch(), (("rows", 6),))


def test_a_wrong_parameter_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"'max_steps'.*did you mean max_steps_in_episode"):
        envs.make("CartPole-v1", (), (("max_steps", 7),))


# Environments of a user


class Chain:
    """The least that makes an environment: no base class, no parameters, no name."""

    def reset(self, key, params=None):
        return jnp.zeros((1,)), jnp.int32(0)

    def step(self, key, state, action, params=None):
        state = state + action
        obs = state[None].astype(jnp.float32)
        terminated = state >= 3
        new_state = jnp.where(terminated, 0, state)
        info = {"final_observation": obs}
        new_obs = jnp.where(terminated, 0, obs)
        return new_obs, new_state, action, terminated, jnp.bool_(False), info

    def action_space(self, params=None):
        return spaces.Discrete(2)


def with_space(space):
    chain = Chain()
    chain.action_space = lambda params=None: space
    return chain


MODULE = """
from gymnax.environments.classic_control.cartpole import CartPole

made = CartPole()
number = 3

class Holder:
    Env = CartPole

def build(limit=0.5):
    env = CartPole()
    env.limit = limit
    return env
"""


@pytest.fixture
def module_of_a_user(tmp_path, monkeypatch):
    (tmp_path / "envs_of_a_user.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("envs_of_a_user")


def test_an_object_with_the_interface_serves():
    env = envs.make(Chain())
    assert env.spec == EnvSpec("Chain", Numbers((1,)), Discrete(2))
    step = jax.jit(env.step)
    state, seen = env.reset(jax.random.key(0))[0], []
    for _ in range(4):
        state, answer = step(chance.of_one(env, jax.random.key(0), state), state, np.int32(1))
        seen.append([answer.obs[0], answer.final_obs[0], answer.reward, answer.terminated])
    assert np.array(seen).tolist() == [[1, 1, 1, 0], [2, 2, 1, 0], [0, 3, 1, 1], [1, 1, 1, 0]]


@pytest.mark.parametrize("attribute", ["made", "build", "Holder.Env"])
def test_a_path_names_an_environment_a_function_or_a_class(attribute, module_of_a_user):
    path = f"envs_of_a_user:{attribute}"
    assert envs.make(path).spec == EnvSpec(path, Numbers((4,)), Discrete(2))


def test_a_named_environment_is_made_once_until_the_name_stands_for_another(
    module_of_a_user, monkeypatch
):
    made = []
    builders = [lambda **kwargs: made.append(kwargs) or CartPole() for _ in range(2)]
    path = "envs_of_a_user:build"
    monkeypatch.setattr(module_of_a_user, "build", builders[0])
    first = envs.make(path)
    assert envs.make(path) is first
    assert envs.make(path, env_params=(("gravity", 1.0),)) is not first
    assert envs.make(path, (("one", 1),)) is not envs.make(path, (("one", True),))
    assert made == [{}, {}, {"one": 1}, {"one": True}]
    assert made[2]["one"] is not True
    monkeypatch.setattr(module_of_a_user, "build", builders[1])
    assert envs.make(path) is not first
    assert envs.make(builders[0]) is not envs.make(builders[0])  # may be changed meanwhile
    assert len(made) == 7


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("no_such_module:Env", ValueError, "no_such_module"),
        ("envs_of_a_user:Env", ValueError, "envs_of_a_user has no attribute 'Env'"),
        ("envs_of_a_user:Holder.env", ValueError, "has no attribute 'Holder.env'"),
        ("envs_of_a_user:number", TypeError, "envs_of_a_user:number.*interface"),
        ("envs_of_a_user:Holder", TypeError, "lacks reset, step, action_space"),
    ],
)
def test_a_path_to_no_environment_is_refused(path, error, message, module_of_a_user):
    with pytest.raises(error, match=message):
        envs.make(path)


def test_a_function_that_does_not_take_the_keyword_is_refused(module_of_a_user):
    envs.make("envs_of_a_user:build", (("limit", 1.0),))
    with pytest.raises(TypeError, match=r"'limits': 1.0.*envs_of_a_user:build"):
        envs.make("envs_of_a_user:build", (("limits", 1.0),))


def test_a_registered_environment_is_found(monkeypatch):
    monkeypatch.setattr(gymnax.registration, "_registry", dict(gymnax.registration._registry))
    before = list(gymnax.registered_envs)
    gymnax.register("Catch-of-a-user", partial(Catch, rows=7))
    try:
        spec = EnvSpec("Catch-of-a-user", Numbers((7, 5)), Discrete(3))
        assert envs.make("Catch-of-a-user").spec == spec
    finally:
        gymnax.registered_envs[:] = before


def test_an_object_without_the_interface_is_refused():
    lacking = types.SimpleNamespace(step=Chain().step, reset=Chain().reset)
    with pytest.raises(TypeError, match="lacks action_space"):
        envs.make(lacking)


@pytest.mark.parametrize(
    "space",
    [spaces.Tuple((spaces.Discrete(2),)), spaces.Dict({"a": spaces.Discrete(2)})],
    ids=["tuple", "dict"],
)
def test_an_unsupported_action_space_is_refused(space):
    with pytest.raises(ValueError, match=r"unsupported action space.*Discrete.* or Box"):
        envs.make(with_space(space))


@pytest.mark.parametrize(
    ("space", "expected", "action", "reward"),
    [
        (gymnasium.spaces.Discrete(3, start=4), Discrete(3), [1], 5),
        (gymnasium.spaces.MultiDiscrete([2, 3], start=[1, 2]), ((2,), (2, 3)), [1, 2], 6),
        (gymnasium.spaces.MultiBinary(3), ((3,), (2, 2, 2)), [1, 0, 1], 2),
    ],
    ids=str,
)
def test_discrete_actions_are_numbered_from_0(space, expected, action, reward):
    """The reward is the sum of what the environment is given."""

    class Summing(Chain):
        def step(self, key, state, action, params=None):
            obs, state, _, *rest = super().step(key, state, jnp.int32(0), params)
            return obs, state, jnp.sum(action), *rest

        def action_space(self, params=None):
            return space

    env = envs.make(Summing())
    assert env.spec.action_space == expected
    state, _ = env.reset(jax.random.key(0))
    action = jnp.array(action).reshape(env.spec.action_space.shape)
    assert env.step(chance.of_one(env, jax.random.key(0), state), state, action)[1].reward == reward


def test_pytrees_of_observations_become_one_vector():
    env = envs.make("probes:Counter")
    assert env.spec.obs_shape == (3,)
    state, obs = jax.jit(env.reset)(jax.random.key(0))
    _, answer = jax.jit(env.step)(chance.of_one(env, jax.random.key(0), state), state, np.int32(1))
    assert (obs.tolist(), answer.obs.tolist()) == ([0, 1, 0], [1, 0, 1])
    assert (env.mask(state).tolist(), answer.mask.tolist()) == ([True] * 3, [True, True, False])


def test_discrete_observations_are_one_hot():
    spec = envs.make("FrozenLake-misc").spec
    assert spec.obs_shape == (spec.observation.n[0],)


def test_a_box_has_bounds_for_each_component():
    low = np.array([[-1.0, -2.0], [-3.0, -4.0]])
    pendulum = gymnax.make("Pendulum-v1")[0]
    pendulum.action_space = lambda params=None: spaces.Box(low, 5.0, (2, 2))
    pendulum.step_env = lambda key, state, action, params: type(pendulum).step_env(
        pendulum, key, state, action.reshape(4)[:1], params
    )
    space = envs.make(pendulum).spec.action_space
    assert space == Box((2, 2), (-1.0, -2.0, -3.0, -4.0), (5.0,) * 4)
    assert space.size == 4


# Environments that do not keep to the interface


class Drifting(probes.Probe):
    """Its mark is of one type when reset and of another after a step."""

    def __init__(self, at_reset, after_step):
        self.at_reset, self.after_step = at_reset, after_step

    def reset_env(self, key, params):
        return jnp.zeros(1), probes.State(time=jnp.int32(0), mark=self.at_reset)

    def step_env(self, key, state, action, params):
        state = probes.State(time=state.time + 1, mark=self.after_step(state.mark))
        return jnp.zeros(1), state, jnp.float32(0), jnp.bool_(False), {}


def own_step(kind):
    """The same environment with a step of its own."""

    class Own(kind):
        def step(self, key, state, action, params=None):
            obs, state, reward, terminated, info = self.step_env(key, state, action, params)
            info = {"final_observation": obs, **info}
            return obs, state, reward, terminated, jnp.bool_(False), info

    return Own


@pytest.mark.parametrize("kind", [Drifting, own_step(Drifting)], ids=["gymnax's step", "its own"])
@pytest.mark.parametrize(
    ("at_reset", "after_step", "told"),
    [
        (0, lambda x: x + 0.5, r"int32\[\] when reset and float32\[\]"),
        (jnp.int32(0), lambda x: x + 0.5, r"int32\[\] when reset and float32\[\]"),
        (jnp.uint8(3), lambda x: jnp.int32(300), r"uint8\[\] when reset and int32\[\]"),
        (jnp.float32(0), lambda x: jnp.bfloat16(x), r"float32\[\] when reset and bfloat16\[\]"),
        (False, lambda x: x + 1, r"bool\[\] when reset and int32\[\]"),
        (jnp.zeros(2), lambda x: x[None], r"float32\[2\] when reset and float32\[1, 2\]"),
    ],
    ids=["weak", "strong", "narrow", "half", "bool", "shape"],
)
def test_a_state_that_changes_its_type_is_refused(kind, at_reset, after_step, told):
    with pytest.raises(TypeError, match=f"env = '(Drifting|Own)': 'mark' in its state is {told}"):
        envs.make(kind(at_reset, after_step))


@pytest.mark.parametrize("kind", [Drifting, own_step(Drifting)], ids=["gymnax's step", "its own"])
@pytest.mark.parametrize(
    ("at_reset", "after_step", "dtype", "value"),
    [
        (0, lambda x: x + 1, "int32", 2),
        (jnp.float32(0.5), lambda x: 3, "float32", 3),
        (0.5, lambda x: x + 1, "float32", 2.5),
        (jnp.bfloat16(0.5), lambda x: 0.25, "bfloat16", 0.25),
        (np.int8(1), lambda x: x + 1, "int8", 3),
    ],
    ids=["weak", "whole", "real", "bfloat16", "int8"],
)
def test_pythons_numbers_take_on_the_types_of_a_state(kind, at_reset, after_step, dtype, value):
    env = envs.make(kind(at_reset, after_step))
    step, (state, _) = jax.jit(env.step), env.reset(jax.random.key(0))
    for _ in range(2):
        state, _ = step(chance.of_one(env, jax.random.key(0), state), state, np.int32(0))
    assert (state.mark.dtype, state.mark) == (dtype, value)


def test_a_random_key_may_be_in_a_state():
    env = envs.make(Drifting(jax.random.key(3), lambda key: jax.random.split(key)[0]))
    state, _ = env.reset(jax.random.key(0))
    state, _ = env.step(chance.of_one(env, jax.random.key(0), state), state, jnp.int32(0))
    assert state.mark == jax.random.split(jax.random.key(3))[0]


class Restructured(probes.Probe):
    def reset_env(self, key, params):
        return jnp.zeros(1), {"time": jnp.int32(0), "mark": jnp.int32(0)}

    def step_env(self, key, state, action, params):
        return jnp.zeros(1), {"time": state["time"]}, jnp.float32(0), jnp.bool_(False), {}

    def is_truncated(self, state, params):
        return jnp.bool_(False)


def chain(**methods):
    return type("Chain", (Chain,), methods)()


def returning(change):
    """A chain whose step returns something else."""
    return chain(step=lambda self, *args: change(*Chain.step(self, *args)))


FAULTY = {
    "five values": (
        returning(lambda obs, state, reward, done, _, info: (obs, state, reward, done, info)),
        r"Chain.step must return \(obs, state, reward, terminated, truncated, info\),"
        " not 5 values, as before gymnax 1.0",
    ),
    "None": (returning(lambda *answer: None), "Chain.step must return .* not NoneType"),
    "a bare observation": (
        chain(reset=lambda self, key, params=None: jnp.zeros(2)),
        r"Chain.reset must return \(obs, state\), not an array of shape \(2,\)",
    ),
    "a bare observation through gymnax's own reset": (
        type("Bare", (probes.Probe,), {"reset_env": lambda self, key, params: jnp.zeros(2)})(),
        r"Bare.reset_env must return \(obs, state\), not an array of shape \(2,\)",
    ),
    "rewards": (
        returning(lambda obs, state, reward, *rest: (obs, state, jnp.ones(2), *rest)),
        r"reward must be a scalar, not of shape \(2,\)",
    ),
    "flags": (
        returning(lambda obs, state, reward, done, *rest: (obs, state, reward, done[None], *rest)),
        r"terminated must be a scalar, not of shape \(1,\)",
    ),
    "another structure": (Restructured(), "another structure after a step .*mark only in one"),
    "a space that is no method": (
        chain(action_space=spaces.Discrete(2)),
        r"action_space\(params\) must give a space, and fails: 'Discrete' object is not callable",
    ),
    "the base class's space": (
        type("Spaceless", (probes.Probe,), {"action_space": Environment.action_space})(),
        r"Spaceless has no action_space\(params\)",
    ),
    "an attribute that is missing": (
        chain(step=lambda self, key, state, action, params=None: state.nothing),
        "its step fails: AttributeError: .*nothing",
    ),
    "Python's control flow": (
        chain(step=lambda self, key, state, action, params=None: 1 if action else 2),
        "its step fails: TracerBoolConversionError",
    ),
}


@pytest.mark.parametrize("case", FAULTY)
def test_a_fault_of_the_interface_is_told_in_a_line(case):
    env, told = FAULTY[case]
    with pytest.raises(
        (ValueError, TypeError), match=f"^env = '{type(env).__name__}': .*{told}"
    ) as e:
        envs.make(env)
    assert "\n" not in str(e.value)


# What a step means

LIMIT, ANGLE = 7, 0.13
CARTS, STEPS = 16, 60


@pytest.fixture(scope="module")
def cartpole():
    """CartPole with a time limit and an angle that both end episodes often: a random run of it,
    as (our steps, what gymnax's own step answers in the same states), both Steps [T, B, ...]."""
    overrides = {"max_steps_in_episode": LIMIT, "theta_threshold_radians": ANGLE}
    env = envs.make("CartPole-v1", (), tuple(overrides.items()))
    source, params = gymnax.make("CartPole-v1")
    params = params.replace(**overrides)

    @jax.jit
    @jax.vmap
    def both_steps(key, state, action):
        obs, _, *flags, info = source.step(key, state, action, params)
        theirs = Step(obs, *flags, info["final_observation"])
        key_step, key_reset = jax.random.split(key)  # as gymnax does
        state, ours = env.step((key_step, env.reset(key_reset)), state, action)
        return state, (ours, theirs)

    steps = []
    actions = np.random.default_rng(0).integers(2, size=(STEPS, CARTS))
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), CARTS))
    for t, action in enumerate(actions):
        keys = jax.random.split(jax.random.key(100 + t), CARTS)
        state, both = both_steps(keys, state, action)
        steps.append(both)
    return jax.tree.map(lambda *x: np.stack(x), *steps)


def test_a_step_is_that_of_gymnax(cartpole):
    ours, theirs = cartpole
    assert ours[5:] == (None,) * 4
    for name, x, y in zip(Step._fields[:5], ours, theirs):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)


def test_terminated_and_truncated_are_kept_apart(cartpole):
    steps, _ = cartpole
    angle = np.abs(steps.final_obs[..., 2])
    time = np.zeros(CARTS, int)
    for t in range(STEPS):
        time += 1
        np.testing.assert_array_equal(steps.truncated[t], time >= LIMIT)
        np.testing.assert_array_equal(steps.terminated[t], angle[t] > ANGLE)
        time[steps.truncated[t] | steps.terminated[t]] = 0
    seen = set(zip(steps.terminated.ravel().tolist(), steps.truncated.ravel().tolist()))
    assert seen == {(False, False), (True, False), (False, True), (True, True)}


def test_a_new_episode_begins_where_one_ended_and_the_true_successor_is_kept(cartpole):
    steps, _ = cartpole
    done = steps.terminated | steps.truncated
    np.testing.assert_array_equal(steps.obs[~done], steps.final_obs[~done])
    assert np.all(np.abs(steps.obs[done]) <= 0.05)  # CartPole's start
    assert np.all(np.abs(steps.final_obs[done]).max(axis=-1) > 0.05)
    assert len(np.unique(steps.obs[done], axis=0)) == done.sum()  # every start is drawn anew


def test_an_environment_goes_through_its_own_step():
    """DeepSea's own step carries its count of bad episodes through resets."""
    env = envs.make("DeepSea-bsuite", (("size", 2),))
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    left = 1 - state.action_mapping[0, 0]
    bad_episodes = 0
    for t in range(6):
        state, answer = step(chance.of_one(env, jax.random.key(t), state), state, left)
        bad_episodes += int(answer.terminated)
        assert state.total_bad_episodes == bad_episodes
        assert bool(answer.terminated) == (t % 2 == 1)
        assert answer.final_obs.sum() == (0 if answer.terminated else 1)  # beyond the last row
        assert answer.obs.sum() == 1
    assert bad_episodes == 3


def test_a_wrapper_goes_through_its_own_step():
    """With probability 1 the first action, 0, sticks: the cart is pushed left whatever is asked."""
    stuck = envs.make(StickyActionWrapper(CartPole(), 1.0))
    free = envs.make(CartPole())
    assert stuck.spec.obs_shape == free.spec.obs_shape
    left, right = first_steps(free, [0, 1]).final_obs
    _, pushed = first_steps(stuck, [0, 1]).final_obs
    np.testing.assert_allclose(pushed, left, rtol=1e-5)
    assert np.abs(pushed - right).max() > 0.1


@pytest.mark.parametrize(
    ("env", "are_known"),
    [
        ("CartPole-v1", True),
        ("gymnax/Pendulum-v1", True),
        ("gymnasium/BipedalWalker-v3", True),
        ("gymnasium/CarRacing-v3", False),  # images
        ("Breakout-MinAtar", False),
        ("ALE/Pong-v5", False),
        ("probes:Picture", False),
        (CartPole, False),
    ],
)
def test_what_an_id_says_of_observations(env, are_known):
    assert envs.has_vectors(env) == are_known
