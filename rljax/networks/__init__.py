"""Flax networks: torsos, heads, and the actor-critic that joins them.

A torso is any linen module that maps observations [B, *obs_shape] to features [B, F]. One's own
is given the pieces of a Dict or Tuple, nested as their space is, each [B, ...].
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import Config, load_attribute, unknown
from rljax.envs import spaces
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import ActionSpace, Box, Discrete, Numbers, Parts
from rljax.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian
from rljax.networks.layers import Dense, orthogonal

ACTIVATIONS = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}


class MLP(nn.Module):
    """Dense layers over the flattened observation."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, obs):
        x = obs.reshape(obs.shape[0], -1)
        for size in self.hidden_sizes:
            x = self.activation(_dense(size, gain=np.sqrt(2))(x))
        return x


class CNN(nn.Module):
    """MinAtar's network (arXiv 1903.03176): one 3x3 convolution of 16 channels, then dense, over
    images [B, H, W, C], [B, C, H, W] if their channels are "first", or [B, H, W].

    The convolution is written as a dense layer on 3x3 patches: XLA's convolution gradient on a
    CPU is many times slower inside a loop, where the update runs.
    """

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    channels: str = "last"

    @nn.compact
    def __call__(self, obs):
        if obs.ndim == 3:
            obs = obs[..., None]
        elif self.channels == "first":
            obs = jnp.moveaxis(obs, 1, -1)
        height, width = obs.shape[1] - 2, obs.shape[2] - 2
        shifts = [(i, j) for i in range(3) for j in range(3)]
        patches = [obs[:, i : i + height, j : j + width] for i, j in shifts]
        x = _dense(16, gain=np.sqrt(2), name="conv")(jnp.concatenate(patches, axis=-1))
        return MLP(self.hidden_sizes, self.activation)(self.activation(x))


class ActorCritic(nn.Module):
    """A policy head and a value head on torsos of their own, or on one that they share."""

    make_torso: Callable[[], nn.Module]
    shared_torso: bool
    action_space: ActionSpace
    action_bounds: str
    log_std_init: float
    pieces: Parts | None = None
    """The torso is given these, apart, instead of one array."""

    def setup(self):
        self.actor_torso = self.make_torso()
        self.critic_torso = self.actor_torso if self.shared_torso else self.make_torso()
        is_box = isinstance(self.action_space, Box)
        size = self.action_space.size if is_box else math.prod(self.action_space.mask_shape)
        self.actor_head = _dense(size, gain=0.01)
        self.critic_head = _dense(1, gain=1.0)
        if is_box:
            init = nn.initializers.constant(self.log_std_init)
            self.log_std = self.param("log_std", init, (size,))

    def __call__(self, obs, mask=None):
        """(distribution, values [B]) of observations [B, *obs_shape].

        Args:
            mask: bool [B, *mask_shape] the valid actions; None if all are.
        """
        actor_features = self._features(self.actor_torso, obs)
        shared = self.shared_torso
        critic_features = actor_features if shared else self._features(self.critic_torso, obs)
        return self._distribution(actor_features, mask), self._value(critic_features)

    def actor(self, obs, mask=None):
        """The distribution over actions alone."""
        return self._distribution(self._features(self.actor_torso, obs), mask)

    def critic(self, obs):
        """The values [B] alone."""
        return self._value(self._features(self.critic_torso, obs))

    def _features(self, torso, obs):
        features = torso(obs if self.pieces is None else spaces.split(self.pieces, obs))
        shape = getattr(features, "shape", None)
        if shape is None or len(shape) != 2 or len(features) != len(obs):
            came = shape or type(features).__name__
            raise ValueError(
                f"network {type(torso).__name__}: must give features [B, F] for observations of"
                f" shape {obs.shape}, not {came}"
            )
        return features

    def _distribution(self, features, mask):
        out, space = self.actor_head(features), self.action_space
        if isinstance(space, Box):
            kind = TanhGaussian if self.action_bounds == "tanh" else Gaussian
            rows = (
                jnp.broadcast_to(jnp.asarray(row, jnp.float32)[None], out.shape)
                for row in (self.log_std, space.low, space.high)
            )
            return kind(out, *rows)
        logits = out.reshape(-1, *space.mask_shape)
        if mask is not None:
            logits = jnp.where(mask, logits, -jnp.inf)
        if isinstance(space, Discrete):
            return Categorical(logits)
        return MultiCategorical(jnp.where(spaces.is_action(space)[None], logits, -jnp.inf))

    def _value(self, features):
        return self.critic_head(features)[:, 0]


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """The network that a config asks for, for an environment.

    Raises:
        ValueError: an unknown torso, or tanh-squashed actions without finite bounds.
        TypeError: the torso is no linen module.
    """
    bounds = spec.action_space[1:] if isinstance(spec.action_space, Box) else ()
    if config.action_bounds == "tanh" and not np.all(np.isfinite(bounds)):
        raise ValueError(f"action_bounds = 'tanh': {spec.name} has actions without finite bounds")
    is_own = not isinstance(config.network, str) or ":" in config.network
    return ActorCritic(
        make_torso=_torso(config, spec),
        shared_torso=config.shared_torso,
        action_space=spec.action_space,
        action_bounds=config.action_bounds,
        log_std_init=config.log_std_init,
        pieces=spec.observation if is_own and isinstance(spec.observation, Parts) else None,
    )


def init(config: Config, network: ActorCritic, spec: EnvSpec, key: jax.Array) -> Any:
    """Fresh variables of a network that `make` made: its parameters.

    Raises:
        ValueError: it needs more than parameters: another collection of variables (such as the
            statistics of batch normalisation), which the optimiser must not train, or random
            numbers when it is applied.
    """
    name, obs = f"network = {config.network!r}", jnp.zeros((1, *spec.obs_shape))
    variables = network.init(key, obs)
    others = ", ".join(repr(collection) for collection in variables if collection != "params")
    if others:
        raise ValueError(
            f"{name}: has variables in {others}; only 'params' are trained and kept, so that a"
            " network must have no others (nn.LayerNorm instead of nn.BatchNorm, for example)"
        )
    try:
        jax.eval_shape(network.apply, variables, obs)
    except flax.errors.InvalidRngError as error:
        why = str(error).partition(" (https")[0]
        raise ValueError(f"{name}: draws random numbers when applied ({why})") from error
    return variables


def describe(config: Config, spec: EnvSpec) -> dict:
    """What `make` chooses, for the record: the torso, of a convolution where it takes the channels
    to be, and what observations are."""
    torso = _torso(config, spec)
    record = {"torso": torso.func.__name__ if isinstance(torso, partial) else str(config.network)}
    if record["torso"] == "CNN":
        record["channels"] = torso.keywords["channels"]
    record["observation"] = list(spec.obs_shape)
    if isinstance(spec.observation, Numbers):
        record["observation_scale"] = spec.observation.scale
    return record


def _torso(config, spec) -> Callable[[], nn.Module]:
    network: Any = config.network
    if network in ("auto", "mlp", "cnn"):
        settings = config.hidden_sizes, ACTIVATIONS[config.activation]
        channels = None if network == "mlp" else _channels(config, spec)
        if network == "cnn" and channels is None:
            raise ValueError(
                f"network = 'cnn': {spec.name} has observations {spec.obs_shape}, no images"
                " [H, W, C] or [C, H, W] of at least 3 x 3"
            )
        return partial(CNN, *settings, channels=channels) if channels else partial(MLP, *settings)
    if isinstance(network, str):
        if ":" not in network:
            raise ValueError(unknown("network", network, ["auto", "mlp", "cnn"]))
        network = load_attribute(network)
    if isinstance(network, type) and issubclass(network, nn.Module):
        return network
    if isinstance(network, nn.Module):
        return network.clone
    raise TypeError(f"network = {config.network!r}: no flax.linen module")


def _channels(config, spec):
    """Where images have their channels: "last", "first", or "none" of grey bytes [H, W]; None where
    observations are no images.

    Last where the first two axes are a square, or it is the shortest axis; else first where it is
    the shortest, by half or before a square.
    """
    shape = spec.obs_shape
    is_bytes = getattr(spec.observation, "scale", 1.0) != 1.0
    if len(shape) == 2 and is_bytes and min(shape) >= 3:
        return "none"
    if len(shape) != 3:
        if len(shape) > 3 and is_bytes:
            raise ValueError(
                f"network = {config.network!r}: {spec.name} has observations {shape}, more than one"
                " image: stack their channels, or set network = 'mlp' or one of your own"
            )
        return None
    possible = {"last": min(shape[:2]) >= 3, "first": min(shape[1:]) >= 3}
    if config.channels != "auto":
        return config.channels if possible[config.channels] else None
    first, middle, last = shape
    if possible["last"] and (first == middle or last <= min(first, middle)):
        return "last"
    others = min(middle, last)
    if possible["first"] and first < others and (middle == last or 2 * first <= others):
        return "first"
    if possible["last"]:
        raise ValueError(
            f"channels = 'auto': {spec.name} has observations {shape}, of which the channels cannot"
            " be told; set channels = 'last' or 'first', or network = 'mlp'"
        )
    return None


def _dense(size, gain, name=None):
    return Dense(size, kernel_init=orthogonal(gain), name=name)
