"""Torsos, and which of them a config names.

A torso is any linen module that maps observations [B, *obs_shape] to features [B, F]. A user's own
takes the parts of a Dict or Tuple, nested as their space is, each [B, ...].
"""

from collections.abc import Callable
from functools import partial
from typing import Any

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
    """MinAtar's network (arXiv 1903.03176): one 3x3 convolution of 16 channels, then dense layers,
    for images [B, H, W, C], [B, C, H, W] if their channels are "first", or [B, H, W]."""

    hidden_sizes: tuple[int, ...]
    activation: Callable[[jax.Array], jax.Array]
    channels: str = "last"

    @nn.compact
    def __call__(self, obs):
        if obs.ndim == 3:
            obs = obs[..., None]
        elif self.channels == "first":
            obs = jnp.moveaxis(obs, 1, -1)
        x = Conv(16, gain=np.sqrt(2), name="conv")(obs)
        x = activate(self, "activation", self.activation, x)
        return MLP(self.hidden_sizes, self.activation)(x)


def choose(config: Config, spec: EnvSpec) -> Callable[[], nn.Module]:
    """A function that makes the torso named in a config.

    Raises:
        ValueError: an unknown name, or observations that do not fit the CNN.
        TypeError: an object that is no linen module.
    """
    network: Any = config.network
    if network in ("auto", "mlp", "cnn"):
        settings = config.hidden_sizes, getattr(nn, config.activation)
        channels = None if network == "mlp" else _channels(config, spec)
        if network == "cnn" and channels is None:
            what = f"{spec.name} has observations {spec.obs_shape}"
            images = "images [H, W, C] or [C, H, W] of at least 3 x 3"
            raise ValueError(f"network = 'cnn': {what}, not {images}")
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
