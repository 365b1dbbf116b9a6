"""XLand-MiniGrid and its MiniGrid environments (Nikulin et al. 2023, arXiv 2312.12044).

An episode is terminated at its goal, and truncated after `max_steps`. Observed are the cells before
the agent, tile and colour of each one-hot, as their kinds have no order: bool [view_size,
view_size, 13 + 12]. The suite's baselines learn embeddings, which the first layer of a network can
learn as well: they are linear functions of it.
"""

from typing import Any

import jax
import xminigrid
from flax import struct
from gymnax.environments import environment, spaces
from xminigrid import benchmarks
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from rljax.utils.lookup import unknown


def ids() -> list[str]:
    return list(xminigrid.registered_environments())


def make(name: str, **kwargs: Any) -> environment.Environment:
    """An environment, of a `view_size` and the like. XLand's need a `benchmark`, the name or file
    of many rulesets: each episode draws one of them, or all have the one of number `ruleset`."""
    if name not in ids():
        raise ValueError(unknown("environment", name, ids()))
    if not name.startswith("XLand"):
        return _Grid(*xminigrid.make(name, **kwargs))
    rulesets, number = _load(kwargs.pop("benchmark", None)), kwargs.pop("ruleset", None)
    if number is None:
        return _Grid(*xminigrid.make(name, **kwargs), rulesets.sample_ruleset)
    if number not in range(len(rulesets.goals)):
        raise ValueError(f"ruleset = {number}: must be from 0 to {len(rulesets.goals) - 1}")
    return _Grid(*xminigrid.make(name, ruleset=rulesets.get_ruleset(number), **kwargs))


@struct.dataclass
class _Params:
    max_steps: int


class _Grid(environment.Environment):
    costly_reset = True
    default_params = property(lambda self: _Params(self.params.max_steps))

    def __init__(self, grid, params, draw=None):
        self.grid, self.params, self.draw = grid, params, draw

    def reset_env(self, key, params):
        key, key_ruleset = jax.random.split(key)
        own = self.params.replace(ruleset=self.draw(key_ruleset)) if self.draw else self.params
        state = self.grid.reset(own, key)
        return _one_hot(state.observation), state

    def step_env(self, key, state, action, params):
        state = self.grid.step(self.params.replace(max_steps=params.max_steps), state, action)
        return _one_hot(state.observation), state, state.reward, state.discount == 0, {}

    def is_truncated(self, state, params):
        return state.state.step_num >= params.max_steps

    def action_space(self, params):
        return spaces.Discrete(self.grid.num_actions(self.params))


def _one_hot(cells):
    kinds = ((cells[..., 0], NUM_TILES), (cells[..., 1], NUM_COLORS))
    return jax.numpy.concatenate([jax.nn.one_hot(x, n, dtype=bool) for x, n in kinds], axis=-1)


def _load(benchmark):
    names, by_path = benchmarks.registered_benchmarks(), benchmarks.load_benchmark_from_path
    try:
        return (benchmarks.load_benchmark if benchmark in names else by_path)(benchmark)
    except (OSError, EOFError, TypeError) as error:
        what = f"must be a file, or be downloaded ({', '.join(names)}) to {benchmarks.DATA_PATH}"
        raise ValueError(f"benchmark = {benchmark!r}: {what}: {error}") from error
