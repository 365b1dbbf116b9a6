"""pgx: MinAtar's games and 2048, the ones of pgx that one player plays.

A game ends by its own rules alone, Freeway's limit of 2500 steps among them: the State's
`truncated` is never set by pgx itself. Actions are the minimal set of each game and stick with a
chance of `sticky_action_prob`, 0.1 by default. Observations are bools [10, 10, C], or of 2048
[4, 4, 31].
"""

from typing import Any

import jax
import pgx
from gymnax.environments import spaces
from gymnax.environments.environment import Environment

from rljax.utils.lookup import unknown

_SINGLE_PLAYER = "minatar-", "2048"


def ids() -> list[str]:
    return [name for name in pgx.available_envs() if name.startswith(_SINGLE_PLAYER)]


def make(name: str, **kwargs: Any) -> Environment:
    """A game, with the keyword arguments of its class in pgx: `sticky_action_prob` and
    `use_minimal_action_set` of MinAtar's games."""
    if name not in pgx.available_envs():
        raise ValueError(unknown("environment", name, ids()))
    if name not in ids():
        raise ValueError("it is a game of several players, and an agent plays alone")
    game = type(pgx.make(name))(**kwargs)
    return _Game(game) if name.startswith("minatar-") else _Masked(game)


class _Game(Environment):
    costly_reset = True
    default_params = None

    def __init__(self, game: pgx.Env):
        self.game = game

    def reset_env(self, key: jax.Array, params: None) -> tuple[jax.Array, pgx.State]:
        state = self.game.init(key)
        return state.observation, state

    def step_env(
        self, key: jax.Array, state: pgx.State, action: jax.Array, params: None
    ) -> tuple[jax.Array, pgx.State, jax.Array, jax.Array, dict]:
        state = self.game.step(state, action, key)
        return state.observation, state, state.rewards[0], state.terminated, {}

    def is_truncated(self, state: pgx.State, params: None) -> jax.Array:
        return state.truncated

    def action_space(self, params: None = None) -> spaces.Discrete:
        state = jax.eval_shape(self.game.init, jax.random.key(0))
        return spaces.Discrete(*state.legal_action_mask.shape)


class _Masked(_Game):
    """A game some of whose actions are not valid at times, and lose it."""

    def action_mask(self, state: pgx.State, params: None) -> jax.Array:
        return state.legal_action_mask
