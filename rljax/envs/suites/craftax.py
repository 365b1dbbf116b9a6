"""Craftax (Matthews et al. 2024, arXiv 2402.16801), and Craftax-Classic, which is Crafter.

An episode is terminated by death, in Craftax also by defeating the last boss; it is truncated after
`max_timesteps`, one of Craftax's parameters. Observations are float32 from 0 to 1: "Symbolic" ones
[F], "Pixels" ones [H, W, 3].
"""

import contextlib
import importlib
import os
import sys
from typing import Any

import jax
from craftax.craftax_env import make_craftax_env_from_name
from gymnax.environments.environment import Environment

from rljax.utils.lookup import unknown

_OUT_OF_REACH = 2**30  # steps


def ids() -> list[str]:
    return [
        f"Craftax{game}-{form}-v1" for game in ("-Classic", "") for form in ("Symbolic", "Pixels")
    ]


def make(name: str, **static: Any) -> Environment:
    """An environment, with fields of Craftax's StaticEnvParams: `map_size` and the like."""
    if name not in ids():
        raise ValueError(unknown("environment", name, ids()))
    if "Pixels" in name:
        _check_textures("craftax_classic" if "Classic" in name else "craftax")
    with contextlib.redirect_stdout(sys.stderr):  # where it tells of its textures
        world = make_craftax_env_from_name(name, auto_reset=False)
    world.static_env_params = world.static_env_params.replace(**static)
    return _World(world)


class _World(Environment):
    costly_reset = True
    default_params = None  # the instance has some

    def __init__(self, world: Any):
        self.world = world
        self.default_params = world.default_params
        self.action_space, self.observation_space = world.action_space, world.observation_space
        self.reset_env = world.reset_env

    def step_env(
        self, key: jax.Array, state: Any, action: jax.Array, params: Any
    ) -> tuple[jax.Array, Any, jax.Array, jax.Array, dict[str, jax.Array]]:
        """Its info has, at the end of an episode and else 0, "Achievements/NAME" (100 if it was
        reached) and in Classic "score", their geometric mean in this episode."""
        obs, state, reward, _, info = self.world.step_env(key, state, action, params)
        terminated = self.world.is_terminal(state, params.replace(max_timesteps=_OUT_OF_REACH))
        del info["discount"]  # which is 0 at the time limit, too
        return obs, state, reward, terminated, info

    def is_truncated(self, state: Any, params: Any) -> jax.Array:
        return state.timestep >= params.max_timesteps


def _check_textures(game):
    """It takes Craftax a minute to make its textures, which it then keeps among its files."""
    path = importlib.import_module(f"craftax.{game}.constants").TEXTURE_CACHE_FILE
    if not os.path.exists(path) and not os.access(os.path.dirname(path), os.W_OK):
        raise ValueError(f"craftax must write its textures to {path} once, and may not")
