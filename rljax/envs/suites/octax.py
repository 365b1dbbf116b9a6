"""Octax: games of CHIP-8, emulated (Radji et al. 2025, arXiv 2510.01764).

An episode is terminated by the game's own rule, and truncated after `max_steps_in_episode`. An
observation is the frames of a step, bool [4, 32, 64], the newest last. Actions are the game's keys
and, last, none.
"""

import contextlib
import os
import pkgutil
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.environment import Environment, EnvParams
from octax import environments
from octax.env import OctaxEnv

from rljax.utils.lookup import unknown


def ids() -> list[str]:
    """Games; of a game that has levels, each with its number."""
    roms = [os.path.splitext(file)[0] for file in os.listdir(environments.get_rom_path(""))]
    games = [module.name for module in pkgutil.iter_modules(environments.__path__)]
    levels = {game: [rom for rom in roms if re.fullmatch(rf"{game}\d+", rom)] for game in games}
    names = [name for game in games for name in levels[game] or [game]]
    return sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name))


def make(name: str, **kwargs: Any) -> Environment:
    """A game, with keyword arguments of Octax's `create_environment`: `frame_skip` and the like."""
    if name not in ids():
        raise ValueError(unknown("environment", name, ids()))
    with _without_warnings():
        return _Game(environments.create_environment(name, **kwargs)[0])


@struct.dataclass
class _Params(EnvParams):
    max_steps_in_episode: int = 4500


class _Game(Environment):
    default_params = None  # the instance has some

    def __init__(self, game: OctaxEnv):
        self.game = game
        self.default_params = _Params(max_steps_in_episode=game.max_num_steps_per_episodes)

    def reset_env(self, key: jax.Array, params: _Params) -> tuple[jax.Array, Any]:
        state, frames, _ = self.game.reset(key)
        return jnp.swapaxes(frames, 1, 2), state

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: _Params
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Its info has the game's "score". Chance in a game comes from the key of its reset."""
        with _without_warnings():
            state, frames, reward, terminated, _, info = self.game.step(state, action)
        return jnp.swapaxes(frames, 1, 2), state, reward, terminated, info

    def action_space(self, params: _Params) -> spaces.Discrete:
        return spaces.Discrete(self.game.num_actions)


@contextlib.contextmanager
def _without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of JAX: it mixes types of integers
        yield
