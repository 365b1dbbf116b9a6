"""What an environment takes and returns."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from rljax.envs import spaces
from rljax.envs.ops import IN_JAX, Ops


class Step(NamedTuple):
    """What an environment returns for an action, after its auto-reset."""

    obs: Any  # [..., *obs_shape] to act on next; where an episode ended, the first of the new one;
    # in JAX in the dtype of the spec's observation, for `networks.blocks`
    reward: Any  # float32 [...]
    terminated: Any  # bool [...] ended by the environment's own rule; the value from here on is 0
    truncated: Any  # bool [...] cut, usually by a time limit; the value is bootstrapped
    final_obs: Any  # [..., *obs_shape] the true successor, from before the reset
    mask: Any = None  # bool [..., *mask_shape] the valid actions at `obs`; None if all are
    info: Any = None  # float32 [..., K] the numbers of `Config.log_info`; None if there are none;
    # of environments that Python steps only where an episode ended, else 0
    score: Any = None  # float32 [...] the reward as returns count it; None if as it is learnt from
    over: Any = None  # bool [...] the episode as returns count it ended, and was reset; None if it
    # did wherever it was terminated or truncated


class EnvSpec(NamedTuple):
    """The spaces of an environment; hashable, so static under `jax.jit`."""

    name: str
    observation: spaces.Observation
    action_space: spaces.ActionSpace
    has_mask: bool = False  # whether it gives a mask of valid actions
    has_score: bool = False  # whether its steps have a score
    has_over: bool = (
        False  # whether they have `over`: a lost life is terminated, and the game goes on
    )

    @property
    def obs_shape(self) -> tuple[int, ...]:
        """Of an encoded observation."""
        return self.observation.shape

    def empty_obs(self, *leading: int) -> np.ndarray:
        """Encoded observations [*leading, *obs_shape] of zeros, in the dtype in which rollouts keep
        them."""
        dtype = getattr(self.observation, "dtype", "float32")
        return np.zeros((*leading, *self.obs_shape), dtype)


def score(rewarded: Any) -> Any:
    """The score of a `Step`, or of a `types.Transition`."""
    return rewarded.reward if rewarded.score is None else rewarded.score


def over(ended: Any) -> Any:
    """Where the episodes that returns count ended, of a `Step` or of a `types.Transition`."""
    return ended.terminated | ended.truncated if ended.over is None else ended.over


class MDP(NamedTuple):
    """One environment as functions, without auto-reset: pure ones of an environment in JAX, of
    which `autoreset` makes an `Env`; or those of one that is open, and that Python steps."""

    spec: EnvSpec
    reset: Callable[[Any, Any], tuple[Any, Any]]
    """(key, index of the environment in its batch, 0) -> (state, obs): a new episode. Instead of a
    key, an environment that Python steps takes a seed, or None to continue with its generator."""
    step: Callable[[Any, Any, Any], tuple[Any, Step]]
    """(key, state, action) -> (state, Step without mask). At the end of an episode `obs` is
    `final_obs`, and the state is of no use; unless the environment resets itself."""
    mask: Callable[[Any], Any]  # state -> bool [*mask_shape]; None if all are valid
    by_index: bool = False  # whether `reset` depends on the index
    costly_reset: bool = False  # whether a reset takes longer than a step
    resets_itself: bool = False  # in `step`, which then gives the first state and obs of the next
    ops: Ops = IN_JAX  # what its wrappers compute with
    observe: Callable[[Any], Any] = lambda obs: obs
    """What wrappers make of an encoded observation; of a sequence, the oldest first, if they stack
    observations: for policies outside of the environment."""
    stacks: int = 0  # how often they do


def wrapped(mdp: MDP, wrappers: Iterable[Callable[[MDP], MDP]]) -> MDP:
    """An MDP in wrappers, the first one innermost."""
    for wrapper in wrappers:
        mdp = wrapper(mdp)
    return mdp
