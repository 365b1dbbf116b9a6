"""The networks: what they give out, who learns from what, how they start."""

from functools import partial

import flax.linen as nn
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import envs, networks
from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import Box, Discrete, MultiDiscrete, Numbers
from rljax.networks import layers
from rljax.networks.distributions import Categorical, Gaussian, TanhGaussian
from rljax.runs import run

BATCH = 3
THREE = Discrete(3)
BOX = Box((2,), (-1.0, -2.0), (1.0, 3.0))
MATRIX_BOX = Box((2, 3), (-1.0,) * 6, (1.0,) * 6)
UNBOUNDED = Box((1,), (-float("inf"),), (1.0,))
SIZES = (8, 6)


class Wide(nn.Module):
    """A user's own torso."""

    features: int = 5

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.features)(obs.reshape(obs.shape[0], -1))


def spec_of(obs_shape=(4,), action_space=THREE):
    return EnvSpec("an env", Numbers(obs_shape), action_space)


def build(spec, **settings):
    """(network, random parameters of its shapes): much faster than its own initialisation."""
    network = networks.make(Config(hidden_sizes=SIZES, **settings), spec)
    return network, random_params(network, np.zeros((1, *spec.obs_shape), np.float32))


def random_params(module, *inputs):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)


def normal(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def initialise(spec, **settings):
    """Parameters as the network draws them itself."""
    network = networks.make(Config(hidden_sizes=SIZES, **settings), spec)
    return jax.jit(network.init)(jax.random.key(0), np.zeros((1, *spec.obs_shape)))["params"]


@partial(jax.jit, static_argnames=("network", "method"))
def apply(network, params, *inputs, method=None):
    return network.apply(params, *inputs, method=method)


def observations(spec):
    return normal(BATCH, *spec.obs_shape)


@pytest.mark.parametrize(
    ("obs_shape", "space", "settings", "kind"),
    [
        ((4,), THREE, {}, Categorical),
        ((5, 4, 2), THREE, {"network": "cnn", "shared_torso": True}, Categorical),
        ((), THREE, {}, Categorical),
        ((2, 3), BOX, {}, Gaussian),
        ((4,), BOX, {"action_bounds": "tanh"}, TanhGaussian),
        ((5, 4, 2), MATRIX_BOX, {}, Gaussian),
    ],
)
def test_the_outputs(obs_shape, space, settings, kind):
    spec = spec_of(obs_shape, space)
    network, params = build(spec, **settings)
    distribution, values = jax.eval_shape(network.apply, params, observations(spec))
    assert type(distribution) is kind
    assert values.shape == (BATCH,)
    size = space.n if isinstance(space, Discrete) else space.size
    assert {field.shape for field in distribution} == {(BATCH, size)}
    assert {x.dtype for x in (values, *distribution)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("shared", [False, True])
def test_policy_and_value_alone_are_those_of_both(shared):
    spec = spec_of(action_space=BOX)
    network, params = build(spec, shared_torso=shared)
    obs = observations(spec)
    distribution, values = apply(network, params, obs)
    policy, _ = apply(network, params, obs, method="actor")
    value = apply(network, params, obs, method="critic")
    close = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, (policy, value), (distribution, values))


def test_a_continuous_policy_knows_its_bounds_and_its_deviation():
    spec = spec_of(action_space=BOX)
    network, params = build(spec)
    distribution, _ = apply(network, params, observations(spec))
    log_std = params["params"]["log_std"]
    np.testing.assert_array_equal(distribution.log_std, np.tile(log_std, (BATCH, 1)))
    np.testing.assert_array_equal(distribution.low, np.tile([-1, -2], (BATCH, 1)))
    np.testing.assert_array_equal(distribution.high, np.tile([1, 3], (BATCH, 1)))


@pytest.mark.parametrize("shared", [False, True])
def test_torsos_are_separate_or_shared(shared):
    spec = spec_of(action_space=BOX)
    network, params = build(spec, shared_torso=shared)
    heads = {"actor_head", "critic_head", "log_std"}
    torsos = {"actor_torso"} if shared else {"actor_torso", "critic_torso"}
    assert set(params["params"]) == heads | torsos

    def of_values(params):
        return jnp.sum(network.apply(params, observations(spec))[1])

    def of_policy(params):
        return jnp.sum(network.apply(params, observations(spec))[0].mean)

    critics = {"actor_torso" if shared else "critic_torso", "critic_head"}
    assert reached_by(of_values, params) == critics
    assert reached_by(of_policy, params) == {"actor_torso", "actor_head"}


def reached_by(loss, params):
    """The parts of the network that a gradient reaches."""
    gradients = jax.jit(jax.grad(loss))(params)["params"]
    return {
        name
        for name, part in gradients.items()
        if any(np.any(leaf != 0) for leaf in jax.tree.leaves(part))
    }


@pytest.mark.parametrize("obs_shape", [(12,), (5, 4, 2)])
def test_layers_start_orthogonal_with_their_gains_and_without_bias(obs_shape):
    params = initialise(spec_of(obs_shape, BOX), log_std_init=-0.5)
    np.testing.assert_array_equal(params.pop("log_std"), [-0.5, -0.5])
    layers = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *layer, kind = (key.key for key in path)
        layers.setdefault(tuple(layer), {})[kind] = np.asarray(leaf)
    gains = {("actor_head",): 0.01, ("critic_head",): 1.0}
    assert set(gains) < set(layers)
    for layer, parts in layers.items():
        kernel = parts["kernel"].reshape(-1, parts["kernel"].shape[-1])
        gram = kernel.T @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.T
        gain = gains.get(layer, np.sqrt(2))
        np.testing.assert_allclose(gram / gain**2, np.eye(len(gram)), atol=1e-5, err_msg=str(layer))
        assert not parts["bias"].any()
    # Separate torsos are drawn apart.
    for layer in [layer for layer in layers if layer[0] == "actor_torso"]:
        twin = layers["critic_torso", *layer[1:]]
        assert np.abs(layers[layer]["kernel"] - twin["kernel"]).max() > 0.1


@pytest.mark.parametrize(
    ("obs_shape", "has_convolution"),
    [((4,), False), ((5, 4), False), ((5, 4, 2), True), ((), False)],
)
def test_auto_takes_convolutions_for_images(obs_shape, has_convolution):
    _, params = build(spec_of(obs_shape))
    assert ("conv" in params["params"]["actor_torso"]) == has_convolution


def test_hidden_sizes_and_activation_are_taken():
    spec = spec_of()
    network, params = build(spec, activation="relu")
    torso, head = (params["params"][name] for name in ("critic_torso", "critic_head"))
    x = observations(spec)
    for i, size in enumerate(SIZES):
        layer = torso[f"Dense_{i}"]
        x = np.maximum(x @ layer["kernel"] + layer["bias"][None], 0)
        assert x.shape == (BATCH, size)
    expected = (x @ head["kernel"])[:, 0] + head["bias"]
    found = apply(network, params, observations(spec), method="critic")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("own", "features"),
    [(Wide, 5), (Wide(features=7), 7), ("torso_of_a_user:Wide", 11), ("torso_of_a_user:WIDE", 13)],
    ids=["class", "instance", "path of a class", "path of an instance"],
)
@pytest.mark.parametrize("shared", [False, True])
def test_a_users_own_torso(own, features, shared, torso_of_a_user):
    _, params = build(spec_of((2, 2)), network=own, shared_torso=shared)
    assert hash(Config(network=own)) == hash(Config(network=own))
    kernels = {name: part["kernel"] for name, part in params["params"].items() if "head" in name}
    assert kernels["actor_head"].shape == (features, 3)
    assert kernels["critic_head"].shape == (features, 1)
    assert ("critic_torso" in params["params"]) != shared


@pytest.fixture
def torso_of_a_user(tmp_path, monkeypatch):
    """A module on the path that holds a torso."""
    code = """
import flax.linen as nn

class Wide(nn.Module):
    features: int = 11

    @nn.compact
    def __call__(self, obs):
        return nn.Dense(self.features)(obs.reshape(obs.shape[0], -1))

WIDE = Wide(features=13)
"""
    (tmp_path / "torso_of_a_user.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("settings", "spec", "error", "message"),
    [
        ({"network": "mpl"}, spec_of(), ValueError, "unknown network 'mpl': did you mean mlp"),
        ({"network": "cnn"}, spec_of(), ValueError, "network = 'cnn': an env has .*(4,)"),
        ({"network": "nature"}, spec_of(), ValueError, "images .* of at least 36 x 36"),
        ({"network": "nature"}, spec_of((4, 84, 35)), ValueError, "'nature': .* at least 36 x 36"),
        ({"network": "a3c"}, spec_of((19, 84, 3)), ValueError, "'a3c': .* at least 20 x 20"),
        (
            {"network": "nature", "activation": "elu"},
            spec_of((4, 84, 84)),
            ValueError,
            "activation = 'elu': network = 'nature' has 'relu'",
        ),
        (
            {"network": "a3c", "hidden_sizes": (512,)},
            spec_of((4, 84, 84)),
            ValueError,
            r"hidden_sizes = \(512,\): network = 'a3c' has \(256,\)",
        ),
        ({"network": "natur"}, spec_of(), ValueError, "unknown network 'natur': did you mean nat"),
        ({"network": "math:pi"}, spec_of(), TypeError, "network = 'math:pi': no flax.linen module"),
        ({"network": dict}, spec_of(), TypeError, "no flax.linen module"),
        ({"network": 64}, spec_of(), TypeError, "network = 64: no flax.linen module"),
        ({"network": "math:mlp"}, spec_of(), ValueError, "math has no attribute 'mlp'"),
        ({"network": "no_such:mlp"}, spec_of(), ValueError, "No module named 'no_such'"),
        (
            {"action_bounds": "tanh"},
            spec_of(action_space=UNBOUNDED),
            ValueError,
            "action_bounds = 'tanh': an env has actions without finite bounds",
        ),
    ],
)
def test_what_is_no_network_is_refused(settings, spec, error, message):
    with pytest.raises(error, match=message):
        networks.make(Config(**settings), spec)


def test_unbounded_actions_are_allowed_if_not_squashed():
    build(spec_of(action_space=UNBOUNDED), action_bounds="clip")


def test_the_cnn_is_a_convolution():
    """Its first layer, on patches, equals Flax's 3x3 convolution with the same kernel."""
    obs = normal(2, 6, 5, 3)
    cnn = networks.CNN((), lambda x: x)
    params = random_params(cnn, obs)
    dense = params["params"]["conv"]
    conv = {"params": {"kernel": dense["kernel"].reshape(3, 3, 3, 16), "bias": dense["bias"]}}
    expected = np.asarray(apply(nn.Conv(16, (3, 3), padding="VALID"), conv, obs))
    found = apply(cnn, params, obs)
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "width", "stride"),
    [
        ((9, 10, 2), 3, 3, 1),  # as products of patches, fewer channels than it gives
        ((9, 10, 5), 3, 3, 1),  # as sums of products
        ((13, 16, 2), 3, 4, 2),  # rows and columns that no patch reaches
        ((13, 16, 1), 5, 4, 2),
        ((12, 15, 2), 3, 8, 4),
        ((8, 8, 2), 3, 4, 4),  # patches side by side
    ],
)
def test_convolutions_are_those_of_xla(shape, size, width, stride):
    """And their gradients, those of the images, too; also where acting recorded the output."""
    obs, weights = normal(2, *shape), normal(width * width * shape[-1], size)
    conv = layers.Conv(size, 1.0, width, stride)
    kernel = weights.reshape(width, width, shape[-1], size)
    how = dict(window_strides=(stride, stride), padding="VALID")
    axes = ("NHWC", "HWIO", "NHWC")

    def usual(obs, kernel, bias):
        return jax.lax.conv_general_dilated(obs, kernel, **how, dimension_numbers=axes) + bias

    def ours(obs, kernel, bias, recorded=None):
        variables = {"params": {"kernel": kernel.reshape(-1, size), "bias": bias}}
        return conv.apply(layers.reuse(variables, recorded), obs)

    bias = np.arange(size, dtype=np.float32)
    with jax.numpy_rank_promotion("allow"):
        expected, pulled = jax.vjp(usual, obs, kernel, bias)
        gradient = normal(*expected.shape)
        expected_gradients = pulled(gradient)
    variables = {"params": {"kernel": weights, "bias": bias}}
    _, recorded = conv.apply(variables, obs, mutable=["recorded"])
    for known in (None, recorded):
        found, pulled = jax.vjp(partial(ours, recorded=known), obs, kernel, bias)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
        for x, y in zip(pulled(gradient), expected_gradients):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4)


def test_the_networks_of_atari_have_their_layers():
    spec = spec_of((4, 84, 84), Discrete(6))
    for name, sizes in {
        "nature": {"conv_0": (256, 32), "conv_1": (512, 64), "conv_2": (576, 64), 0: (3136, 512)},
        "a3c": {"conv_0": (256, 16), "conv_1": (256, 32), 0: (2592, 256)},
    }.items():
        config = Config(network=name)
        network = networks.make(config, spec)
        made = jax.eval_shape(partial(networks.init, config, network, spec), jax.random.key(0))
        torso = made["params"]["actor_torso"]
        torso[0] = torso.pop("MLP_0")["Dense_0"]
        assert {layer: torso[layer]["kernel"].shape for layer in torso} == sizes
        assert networks.describe(config, spec)["channels"] == "first"


@pytest.mark.parametrize(
    ("shape", "chosen"),
    [
        ((10, 10, 4), "last"),  # MinAtar
        ((8, 8, 119), "last"),  # planes of a board
        ((210, 160, 3), "last"),
        ((3, 3, 3), "last"),
        ((10, 4, 4), "last"),
        ((4, 36, 36), "first"),
        ((1, 36, 36), "first"),
        ((3, 210, 160), "first"),
        ((4, 5, 5), "first"),
        ((2, 3, 4), None),
        ((2, 2, 9), None),
        ((4, 36), None),
    ],
    ids=str,
)
def test_channels_are_found(shape, chosen):
    network = networks.describe(Config(), spec_of(shape))
    assert (network["torso"], network.get("channels")) == ("CNN" if chosen else "MLP", chosen)


@pytest.mark.parametrize("shape", [(6, 7, 20), (36, 4, 36)], ids=str)
def test_channels_that_cannot_be_told_are_asked_for(shape):
    with pytest.raises(
        ValueError, match=rf"an env has observations \({shape[0]}, .*set channels ="
    ):
        networks.make(Config(), spec_of(shape))
    for channels in ("first", "last"):
        assert networks.describe(Config(channels=channels), spec_of(shape))["channels"] == channels


class Camera(gymnasium.Env):
    """Grey pictures, in bytes or in floats."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, dtype):
        self.observation_space = gymnasium.spaces.Box(0, 255, (36, 36), dtype)

    def reset(self, *, seed=None, options=None):
        return np.zeros((36, 36), self.observation_space.dtype), {}


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_stacked_frames_are_an_image_of_as_many_channels(dtype):
    env = envs.make(lambda: gymnasium.wrappers.FrameStackObservation(Camera(dtype), 4))
    record = networks.describe(Config(), env.spec)
    assert record == {
        "torso": "CNN",
        "channels": "first",
        "observation": [4, 36, 36],
        "observation_scale": 1 / 255,
    }
    _, params = build(env.spec)
    assert params["params"]["actor_torso"]["conv"]["kernel"].shape == (9 * 4, 16)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_run_of_before_observations_were_scaled_is_refused(tmp_path, dtype):
    """Bytes always were."""
    (tmp_path / "config.json").write_text('{"config": {}, "run": {}}')
    config = Config(env=lambda: Camera(dtype))
    if dtype == np.uint8:
        run.check_network(tmp_path, config)
    else:
        with pytest.raises(ValueError, match=r"by an earlier version, .* they are no bytes"):
            run.check_network(tmp_path, config)


def test_grey_bytes_are_an_image_and_several_images_are_refused():
    grey = EnvSpec("an env", Numbers((36, 30), 1 / 255), THREE)
    assert networks.describe(Config(), grey)["channels"] == "none"
    stack = EnvSpec("an env", Numbers((4, 36, 30, 3), 1 / 255), THREE)
    with pytest.raises(ValueError, match=r"\(4, 36, 30, 3\), more than one image"):
        networks.make(Config(), stack)
    assert networks.describe(Config(network="mlp"), stack)["torso"] == "MLP"


def test_an_image_gives_the_same_wherever_its_channels_are():
    last = normal(BATCH, 6, 5, 3)
    cnn, first = (networks.CNN((4,), nn.tanh, channels) for channels in ("last", "first"))
    params = random_params(cnn, last)
    expected = cnn.apply(params, last)
    np.testing.assert_array_equal(first.apply(params, np.moveaxis(last, -1, 1)), expected)
    params = random_params(cnn, last[..., :1])
    grey = networks.CNN((4,), nn.tanh, "none")
    expected = cnn.apply(params, last[..., :1])
    np.testing.assert_array_equal(grey.apply(params, last[..., 0]), expected)


class Folding(nn.Module):
    """A torso whose layers do not all give one row for each observation; it is called twice."""

    @nn.compact
    def __call__(self, obs):
        layer = layers.Dense(3, name="layer")
        folded = layer(obs.reshape(-1, obs.shape[-1] // 2)).reshape(obs.shape[0], -1)
        query = layers.Dense(6, name="query")(jnp.eye(2))
        self.sow("intermediates", "of the user", jnp.float32(1))
        x = layers.Dense(6, name="plain")(nn.Dense(6, use_bias=False)(nn.tanh(folded)))
        twice = layers.Dense(6, name="twice")
        return nn.LayerNorm()(twice(nn.tanh(twice(x))) + jnp.sum(query, axis=0)[None])


@pytest.mark.parametrize(
    ("obs_shape", "settings", "number"),
    [
        ((4,), {}, 5),  # three layers and two activations
        ((4,), {"shared_torso": True, "activation": "elu"}, 3),
        ((5, 4, 2), {"network": "cnn", "shared_torso": True, "activation": "relu"}, 7),
        ((4,), {"network": Wide}, 1),
        ((4,), {"network": Folding, "shared_torso": True}, 4),
    ],
    ids=["separate", "shared", "convolution", "a user's own", "folding"],
)
def test_gradients_are_the_same_with_what_acting_has_computed(obs_shape, settings, number):
    spec = spec_of(obs_shape)
    network, params = build(spec, **settings)
    obs = observations(spec)
    record = jax.jit(partial(layers.record, network, method="actor"))
    (out, _), recorded = record(params, obs)
    expected = apply(network, params, obs, method="actor")[0].logits
    np.testing.assert_allclose(out.logits, expected, rtol=1e-5)
    assert [len(x) for x in jax.tree.leaves(recorded)] == [BATCH] * number

    def loss(params, recorded):
        distribution, values = network.apply(layers.reuse(params, recorded), obs)
        return jnp.sum(jnp.sin(distribution.logits)) + jnp.sum(jnp.square(values))

    gradient = jax.jit(jax.value_and_grad(loss))
    anew, reused = gradient(params, None), gradient(params, recorded)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), anew, reused)
    # The recorded outputs are what is used: others give another loss.
    others = jax.tree.map(lambda x: np.asarray(x) + 1, recorded)
    assert abs(gradient(params, others)[0] - reused[0]) > 0.01


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_bias": False},
        {"dtype": jnp.bfloat16},
        {"dtype": jnp.bfloat16, "use_bias": False},
        {"param_dtype": jnp.bfloat16},
        {"dtype": jnp.float32, "param_dtype": jnp.float16},
        {"precision": "highest"},
        {"dot_general": jax.lax.dot_general},
    ],
    ids=[
        *("plain", "no bias", "bfloat16", "bfloat16 without bias", "bfloat16 parameters"),
        *("float16 parameters", "precision", "product"),
    ],
)
def test_a_recorded_layer_has_the_gradients_of_flaxs_own(settings):
    x = np.asarray(jax.random.normal(jax.random.key(0), (BATCH, 4)))
    own, flaxs = layers.Dense(5, **settings), nn.Dense(5, **settings)
    params = jax.jit(flaxs.init)(jax.random.key(1), x)

    _, recorded = own.apply(params, x, mutable=["recorded"])

    def gradients(layer, variables):  # not compiled whole: XLA would round bfloat16 elsewhere
        def loss(params, x):
            return jnp.sum(jnp.sin(layer.apply({**variables, **params}, x)))

        return jax.grad(loss, argnums=(0, 1))(params, x)

    expected, found = gradients(flaxs, {}), gradients(own, recorded)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, expected)
    exact = settings.get("dtype") != jnp.bfloat16 or jax.default_backend() == "cpu"
    rtol = 1e-5 if exact else 2**-7  # a unit: a GPU's products are summed in an order of their own
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), found, expected
    )


class Normalising(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return nn.BatchNorm(use_running_average=False)(obs)


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return nn.Dropout(0.5, deterministic=False)(obs)


class Counting(nn.Module):
    """Keeps a variable that is no parameter, and one to look at."""

    @nn.compact
    def __call__(self, obs):
        self.sow("intermediates", "features", obs)
        return obs + self.variable("constants", "shift", lambda: jnp.ones((1, 4))).value


class Unflattened(nn.Module):
    @nn.compact
    def __call__(self, obs):
        return obs[:, None]


@pytest.mark.parametrize(
    ("torso", "message"),
    [
        (Normalising, "has variables in 'batch_stats'; only 'params' are trained"),
        (Counting, "has variables in 'constants'; only 'params' are trained"),
        (Dropping, "draws random numbers when applied"),
        (Unflattened, r"network Unflattened: must give features \[B, F\] .* not \(1, 1, 4\)"),
    ],
)
def test_a_torso_that_training_would_get_wrong_is_refused(torso, message):
    config, spec = Config(network=torso), spec_of()
    network = networks.make(config, spec)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(networks.init, config, network, spec), jax.random.key(0))


@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete((2,), (3, 2))], ids=["one", "two"])
def test_masks_forbid_actions_and_change_nothing_between_the_others(space):
    spec = EnvSpec("an env", Numbers((4,)), space)
    network = networks.make(Config(hidden_sizes=(4,)), spec)
    obs = observations(spec)
    params = random_params(network, obs)
    mask = np.random.default_rng(2).random((BATCH, *space.mask_shape)) < 0.6
    mask[..., 0] = True
    free, _ = apply(network, params, obs)
    masked, _ = apply(network, params, obs, mask)
    exists = mask if isinstance(space, Discrete) else mask & [[True] * 3, [True, True, False]]
    assert np.all(np.isneginf(masked.logits) == ~exists)
    np.testing.assert_array_equal(masked.logits[exists], free.logits[exists])
    np.testing.assert_array_equal(
        apply(network, params, obs, mask, method="actor")[0].logits, masked.logits
    )


def test_a_dense_layer_has_a_forward_mode_derivative():
    """As a user's own network and loss may need it."""
    layer, x = layers.Dense(3), jnp.ones((2, 4))
    variables = layer.init(jax.random.key(0), x)
    _, found = jax.jvp(lambda x: layer.apply(variables, x), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(found, jnp.ones_like(x) @ variables["params"]["kernel"], rtol=1e-5)
