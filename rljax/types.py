"""What flows between the modules. Shapes: T time steps, B environments, [T, B, ...]."""

from typing import Any, NamedTuple

import jax
import numpy as np

from rljax.config import FLOAT_FIELDS, STATIC_FIELDS, Config
from rljax.utils import traced


class Transition(NamedTuple):
    """Experience, time-major: every field is [T, B, ...]."""

    obs: Any
    """[T, B, *obs_shape] float32, or in the dtype of `spaces.Numbers`."""
    action: Any
    """As sampled by the policy: int32 [T, B] or [T, B, A], or float32 [T, B, A] before clipping or
    squashing."""
    reward: Any
    terminated: Any
    truncated: Any
    final_obs: Any
    mask: Any = None
    """The actions that were valid at `obs`, or None."""
    recorded: Any = None
    """What `layers.record` gives of the policy that sampled the actions, [T, B, ...], or None."""
    info: Any = None
    """float32 [T, B, K] the numbers of `Config.log_info`; None where there are none. They count at
    the last step of an episode alone."""
    score: Any = None
    """float32 [T, B] the rewards as returns count them, or None if as they are learnt from."""
    over: Any = None
    """bool [T, B] where the episodes that returns count ended, or None if wherever they were
    terminated or truncated."""


class EpisodeStats(NamedTuple):
    """The episodes in progress, one per environment."""

    episodic_return: Any
    """[B] sum of rewards so far."""
    episodic_length: Any
    """[B] int32 steps so far."""
    discounted_return: Any
    """[B] sum of rewards so far, the older the more discounted; for reward scaling."""


class Moments(NamedTuple):
    """Running mean and variance."""

    count: Any
    mean: Any
    var: Any
    mean_error: Any = None
    """Accumulated rounding errors (Kahan): only `normalization.merge` needs them."""
    var_error: Any = None


class TrainState(NamedTuple):
    """What learning changes: shared by all actors."""

    params: Any
    opt_state: Any
    updates: Any
    """[] int32 gradients so far: those that were applied and, in A3C, those that were rejected."""
    obs_moments: Moments | None
    """Moments of the observations, or None where they are not normalised."""
    return_moments: Moments | None
    """Moments of the discounted return, or None where rewards are not scaled."""


class ActorState(NamedTuple):
    """What acting changes: each actor has its own."""

    env_state: Any
    obs: Any
    """[B, *obs_shape] the next observations to act on."""
    key: Any
    episodes: EpisodeStats
    carry: Any = ()
    """`cores.Carry` [B, ...] to act with next; () without a core."""


class BatchMoments(NamedTuple):
    """A batch's share of the running moments; None where they are not kept."""

    obs: Moments | None
    returns: Moments | None


class BatchMetrics(NamedTuple):
    """Metrics of one batch, scalars; they are summed over a row."""

    episodes: Any
    """float32 number of episodes that ended."""
    episodic_return: Any
    """Sum over the episodes that ended."""
    episodic_length: Any
    """Sum over the episodes that ended."""
    losses: dict[str, Any]
    """The "loss", and what the loss function returned beside it, by name."""
    grad_norm: Any
    """Global norm of the gradient, before clipping."""
    info: Any = None
    """[K] sums over the episodes that ended, of the numbers of `Config.log_info`; None where there
    are none."""


class BatchGradients(NamedTuple):
    """What a batch gives to the holder of the parameters."""

    gradients: Any
    """A pytree like the parameters, or the vector of its raveled leaves."""
    moments: BatchMoments
    metrics: BatchMetrics


class Metrics(NamedTuple):
    """One row of metrics: means over the updates since the last row."""

    updates: Any
    """int32 updates so far."""
    episodes: Any
    """float32 number of episodes that ended."""
    episodic_return: Any
    """Mean return of the episodes that ended; NaN where none did."""
    episodic_length: Any
    """Mean length of the episodes that ended; NaN where none did."""
    losses: dict[str, Any]
    """The "loss", and what the loss function returned beside it, by name."""
    grad_norm: Any
    """Global norm of the gradient, before clipping."""
    learning_rate: Any
    diverged_at: Any
    """int32 the first update of the run after which loss, gradient or parameters were not finite;
    0 where there was none."""
    extra: dict[str, Any] = {}  # noqa: RUF012  a NamedTuple's default; never changed
    """Metrics of the algorithm's own, by name."""
    info: Any = None
    """[K] means over the episodes that ended, of the numbers of `Config.log_info` at their last
    step; NaN where none ended, None where none are logged."""


class AgentState(NamedTuple):
    """The whole state of a run."""

    learner: TrainState
    actor: ActorState
    row: Metrics
    """Sums over the updates since the last row of metrics."""
    row_error: Metrics
    """Their rounding errors so far."""


def _flatten_config(config):
    leaves = tuple(_strong_float32(getattr(config, name)) for name in FLOAT_FIELDS)
    static = (getattr(config, name) for name in STATIC_FIELDS)
    return leaves, (*static, config.typed_kwargs)


def _unflatten_config(static, leaves):
    # Not Config(...): JAX also unflattens with placeholders that are no numbers.
    config = object.__new__(Config)
    for name, value in (*zip(STATIC_FIELDS, static[:-1]), *zip(FLOAT_FIELDS, leaves)):
        object.__setattr__(config, name, value)
    return config


def _strong_float32(x):
    """Numbers become float32 arrays of strong type, so that all of them share one trace."""
    if isinstance(x, jax.core.Tracer):
        return x
    if isinstance(x, jax.Array) and not x.is_fully_addressable:  # other processes have a part
        return x
    if isinstance(x, int | float | np.ndarray | np.generic | jax.Array):
        return np.asarray(x, np.float32)
    return x  # a placeholder of JAX's own


def register(kind: type) -> None:
    """Makes pytrees of an algorithm's own options, a dataclass: floats are the leaves."""

    def flatten(part):
        floats, others = traced.split(part)
        return tuple(map(_strong_float32, floats)), others

    jax.tree_util.register_pytree_node(kind, flatten, lambda x, y: traced.joined(kind, y, x))


jax.tree_util.register_pytree_node(Config, _flatten_config, _unflatten_config)
