"""Torsos, and which of them a config names.

A torso is any linen module that maps observations [B, *obs_shape] to features [B, F]. A user's own
takes the parts of a Dict or Tuple, nested as their space is, each [B, ...].
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import Config
from rljax.envs.interface import EnvSpec
from rljax.networks.layers import Conv, activate, dense
from rljax.utils.lookup import load_attribute, unknown


class MLP(nn.Module):
    """Dense layers over the flattened observation."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, obs):
        x = obs.reshape(obs.shape[0], -1)
        for index, size in enumerate(self.hidden_sizes):
            x = dense(size, gain=np.sqrt(2))(x)
            x = activate(self, f"activation_{index}", self.activation, x)
        return x


class CNN(nn.Module):
    """Convolutions, then dense layers, for images [B, H, W, C], [B, C, H, W] if their channels are
    "first", or [B, H, W]."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    channels: str = "last"
    convolutions: tuple[tuple[int, int, int], ...] = ((16, 3, 1),)
    """(channels of its output, width of its kernel, stride) of each."""

    @nn.compact
    def __call__(self, obs):
        if obs.ndim == 3:
            obs = obs[..., None]
        elif self.channels == "first":
            obs = jnp.moveaxis(obs, 1, -1)
        x, several = obs, len(self.convolutions) > 1
        for index, (size, width, stride) in enumerate(self.convolutions):
            end = f"_{index}" * several
            x = Conv(size, np.sqrt(2), width, stride, name=f"conv{end}")(x)
            x = activate(self, f"activation{end}", self.activation, x)
        return MLP(self.hidden_sizes, self.activation)(x)


IMAGE_TORSOS = {
    "cnn": {},
    "nature": dict(
        hidden_sizes=(512,),
        activation="relu",
        convolutions=((32, 8, 4), (64, 4, 2), (64, 3, 1)),
    ),
    "a3c": dict(hidden_sizes=(256,), activation="relu", convolutions=((16, 8, 4), (32, 4, 2))),
}
"""What networks for images have of their own: MinAtar's (Young and Tian 2019, arXiv 1903.03176),
DQN's (Mnih et al. 2015, Nature), and A3C's (Mnih et al. 2016, arXiv 1602.01783, section 5.1)."""


class Chosen(NamedTuple):
    """A torso that a config names."""

    make: Callable[[], nn.Module]
    settings: dict[str, Any]  # as JSON: of an `MLP` or a `CNN` what it is made with
    name: str  # of the class; of a user's own as the config has it


def choose(config: Config, spec: EnvSpec) -> Chosen:
    """The torso named in a config.

    Raises:
        ValueError: an unknown name, observations that do not fit the CNN, or settings of layers
            that the named torso has of its own.
        TypeError: an object that is no linen module.
    """
    network: Any = config.network
    if network == "auto":
        network = "mlp" if _channels(config, spec) is None else "cnn"
    settings = dict(hidden_sizes=config.hidden_sizes, activation=config.activation)
    if network == "mlp":
        return _made(MLP, settings)
    if isinstance(network, str) and network in IMAGE_TORSOS:
        return _made(CNN, settings | _of_image_torso(config, spec, network))
    if isinstance(network, str):
        if ":" not in network:
            raise ValueError(unknown("network", network, ["auto", "mlp", *IMAGE_TORSOS]))
        network = load_attribute(network)
    if isinstance(network, type) and issubclass(network, nn.Module):
        return Chosen(network, {}, str(config.network))
    if isinstance(network, nn.Module):
        return Chosen(network.clone, {}, str(config.network))
    raise TypeError(f"network = {config.network!r}: no flax.linen module")


def _made(kind, settings):
    function = getattr(nn, settings["activation"])
    return Chosen(partial(kind, **settings | {"activation": function}), settings, kind.__name__)


def _of_image_torso(config, spec, network):
    own = IMAGE_TORSOS[network]
    for name in ("hidden_sizes", "activation"):
        if name in own and getattr(config, name) != getattr(Config, name):
            value = getattr(config, name)
            raise ValueError(f"{name} = {value!r}: network = {network!r} has {own[name]!r}")
    channels, convolutions = _channels(config, spec), own.get("convolutions", CNN.convolutions)
    least = _least_side(convolutions)
    sides = [side for i, side in enumerate(spec.obs_shape) if i != _AXES.get(channels)]
    if channels is None or min(sides) < least:
        what = f"{spec.name} has observations {spec.obs_shape}"
        images = f"images [H, W, C] or [C, H, W] of at least {least} x {least}"
        raise ValueError(f"network = {network!r}: {what}, not {images}")
    return own | dict(channels=channels, convolutions=convolutions)


_AXES = {"last": 2, "first": 0}


def _least_side(convolutions):
    """Of the images from which the last convolution makes one pixel."""
    side = 1
    for _, width, stride in reversed(convolutions):
        side = (side - 1) * stride + width
    return side


def _channels(config, spec):
    """The axis of an image's channels: "last", "first", or "none" for grey bytes [H, W]; None if
    observations are not images.

    It is the last axis if the first two are equal or it is the shortest; else the first if it is
    the shortest and the other two are equal, or at least twice as long.
    """
    shape = spec.obs_shape
    what = f"{spec.name} has observations {shape}"
    is_bytes = getattr(spec.observation, "scale", 1.0) != 1.0
    if len(shape) == 2 and is_bytes and min(shape) >= 3:
        return "none"
    if len(shape) > 3 and is_bytes:
        why = "more than one image: stack their channels, or set network = 'mlp' or one of your own"
        raise ValueError(f"network = {config.network!r}: {what}, {why}")
    if len(shape) != 3:
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
        how = "set channels = 'last' or 'first', or network = 'mlp'"
        raise ValueError(f"channels = 'auto': {what}, whose axis of channels is unclear; {how}")
    return None
