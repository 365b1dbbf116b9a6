"""The learning settings and their checks.

This module imports neither JAX nor Flax, so that a script can read its flags and answer
`--help` at once. `rljax.types` registers `Config` as a pytree when JAX is in use.
"""

import dataclasses
from collections.abc import Hashable
from typing import Any, Literal

import numpy as np

from rljax.utils import env_settings, values
from rljax.utils.checks import ABOVE_0, AT_LEAST_0, SHARE, check, check_range, shown
from rljax.utils.lookup import unknown

KeyValues = tuple[tuple[str, Any], ...]  # values as `utils.values` describes them

MAX_EPISODE_STEPS = 10_000
"""By default an evaluation cuts an episode after this number of steps: ten times the limit of
MuJoCo's and most other environments. Atari's limit is 27,000 steps."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an actor-critic learner.

    The floats are the leaves of a pytree: under `jax.jit` they are traced, so that new values
    compile nothing, and a `Config` whose floats are arrays can be `vmap`ped. Everything else is
    static. Seeds and the options of a run are not settings of the learner and are not in here.
    """

    env: str = "CartPole-v1"
    """A gymnax id, TMaze, a gymnasium id, or 'package.module:attribute'; in Python also an object.
    The prefixes gymnax/ and gymnasium/ choose between the two."""
    env_kwargs: KeyValues = ()
    """Keyword arguments of the environment's constructor, each a value as Python or JSON writes it:
    a number, true, false, None, a list, tuple or dict; all else is text. In Python also a dict, or
    a function from a gymnasium environment's index to a dict (see rljax/envs/by_index.py), which
    package.module:attribute names."""
    reset_options: KeyValues = ()
    """Options of each `reset` of a gymnasium environment; of the same forms."""
    env_params: KeyValues = ()
    """Overrides of its parameters, such as max_steps_in_episode=200, or length=(0.25,0.5,1), which
    environments have in turn; in Python also a dict, or a function from a key to parameters, which
    are drawn at each reset (see rljax/envs/parameters.py)."""
    wrappers: tuple[str, ...] = ()
    """Wrappers, the first one innermost (see rljax/envs/wrappers.py): mask_velocity, flatten,
    frame_stack=4, clip_reward, sticky_actions=0.25, time_limit=500, action_repeat=4, or
    package.module:attribute, whose =VALUE is read as those of env_kwargs and a dict is keyword
    arguments. Episodic returns are of unclipped rewards. In Python also a function, a class such as
    gymnasium.wrappers.TimeAwareObservation, or a pair of either or a name with a value."""
    frame_stack: int = 1  # The last N observations as one, after the wrappers.
    reset: Literal["auto", "fresh", "cached"] = "auto"
    """Environments in JAX: draw a first state for every step, or keep one for some time where a
    reset takes longer than a step (auto) or always (see rljax/envs/autoreset.py)."""
    log_info: tuple[str, ...] = ()
    """Numbers of the environment's info to log, by name: is_success, or episode/r for a number in a
    dict. Each is the column info/NAME: the mean over episodes of the value at their last step."""

    total_timesteps: int = 500_000
    """Environment steps of the run, over all environments; rounded up to whole rollouts."""
    num_envs: int = 16  # Environments that step together.
    vectorization: Literal["sync", "async"] = "sync"
    """Gymnasium's environments: one after another in this process, or spread over processes. It
    changes no result."""
    env_processes: int | None = None
    """Processes of async environments, which share them evenly; by default as many as cores."""
    num_steps: int = 5  # Steps of every environment between two updates: the rollout's length.

    gamma: float = 0.99  # Discount factor.
    gae_lambda: float = 1.0  # Lambda of GAE (arXiv 1506.02438); 1 gives n-step returns.
    ent_coef: float = 0.0  # Weight of the entropy bonus.
    vf_coef: float = 0.5  # Weight of the value loss.
    normalize_advantage: bool = False  # Give a batch's advantages mean 0, standard deviation 1.
    loss: str = "actor_critic"
    """The loss: actor_critic, 'package.module:attribute' or a function (see rljax/losses.py)."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Over the batch: A2C takes the mean, the A3C paper the sum."""

    optimizer: Literal["rmsprop_tf", "rmsprop_torch", "rmsprop_a3c", "adam"] = "rmsprop_tf"
    """RMSProp as in TensorFlow and baselines, PyTorch and SB3, or the A3C paper; or Adam."""
    learning_rate: float = 7e-4  # Step size of the optimiser.
    anneal_lr: bool = True  # Anneal the learning rate to 0, in a straight line over the run.
    rmsprop_decay: float = 0.99  # Decay of RMSProp's running mean of squared gradients.
    optimizer_eps: float = 1e-5  # Epsilon of the optimiser.
    max_grad_norm: float = 0.5  # Larger gradients are scaled to this global norm; inf turns it off.

    network: str = "auto"
    """Torso: mlp, cnn (MinAtar's), nature or a3c (Atari's, which have hidden_sizes and activation
    of their own), auto (cnn for images, else mlp), 'package.module:attribute' or a linen module."""
    channels: Literal["auto", "last", "first"] = "auto"
    """Axis of an image's channels: auto takes the short one."""
    hidden_sizes: tuple[int, ...] = (64, 64)  # Widths of the dense layers.
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """Activation between the layers."""
    shared_torso: bool = False  # One torso for policy and value instead of one each.
    heads: Literal["actor_critic", "q"] = "actor_critic"
    """Policy and value, or q: action values Q alone, with a greedy policy. DQN sets q."""
    core: str = "none"
    """A recurrent core between torso and heads, shared as the torso is: lstm, gru, none,
    'package.module:attribute' or a linen RNN cell."""
    core_size: int = 64  # Units of an lstm or a gru; no other core has it.
    forget_bias: float = 1.0
    """Initial bias of an lstm's forget gate or a gru's update gate: the larger, the longer it first
    remembers; 3 for memories over tens of steps (Gers et al. 2000, Jozefowicz et al. 2015)."""
    core_inputs: tuple[str, ...] = ()
    """What a core takes beside the torso's features: last_action, last_reward, or both."""
    action_bounds: Literal["clip", "tanh"] = "clip"
    """Continuous actions: clip them, or squash them by tanh (with exact log-probability)."""
    log_std_init: float = 0.0  # Initial log standard deviation of a continuous policy.

    normalize_observations: bool = False  # Standardise observations by running moments.
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    def __post_init__(self):
        for name in env_settings.NAMES:
            object.__setattr__(self, name, env_settings.frozen(name, getattr(self, name)))
        for name in ("hidden_sizes", "core_inputs", "wrappers", "log_info"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.wrappers, tuple):
            object.__setattr__(self, "wrappers", tuple(map(_wrapper, self.wrappers)))

    def __eq__(self, other):
        if not isinstance(other, Config):
            return NotImplemented
        same = tuple(vars(self).values()) == tuple(vars(other).values())
        return same and self.typed_kwargs == other.typed_kwargs

    @property
    def typed_kwargs(self) -> str:
        """What the environment is made with, types included: to Python 1, 1.0 and True are equal,
        and what was compiled for one would serve the others."""
        return repr([getattr(self, name) for name in env_settings.NAMES])

    @property
    def batch_size(self) -> int:
        """Environment steps between two updates: num_envs * num_steps."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: total_timesteps, rounded up to whole batches."""
        return -(-self.total_timesteps // self.batch_size)

    def validate(self) -> "Config":
        """Checks every setting and returns the config; runs on the host, before tracing.

        Raises:
            ValueError: a setting is out of its range; the message names it and what is allowed.
            TypeError: a setting is of another type.
        """
        objects = ("env", "network", "core", "loss")  # names, or objects
        check(self, *objects, **dict.fromkeys(_COUNTS, 1))
        if self.env_processes is not None and self.vectorization != "async":
            what = f"vectorization = {self.vectorization!r} has none; set 'async'"
            raise ValueError(f"env_processes = {self.env_processes}: {what}")
        for name in objects:
            if not isinstance(getattr(self, name), Hashable):
                what = "must be hashable, such as a frozen dataclass"
                raise TypeError(f"{name} = {shown(getattr(self, name))}: {what}")
        for name in env_settings.NAMES:
            env_settings.check(name, getattr(self, name))
        for name in ("core_inputs", "log_info"):
            if not _is_names(getattr(self, name)):
                raise TypeError(f"{name} = {shown(getattr(self, name))}: must be a tuple of names")
        if not isinstance(self.wrappers, tuple) or not all(map(_is_wrapper, self.wrappers)):
            what = "must be a tuple of names, of functions, or of pairs of one with a value"
            raise TypeError(f"wrappers = {shown(self.wrappers)}: {what}")
        for name in self.log_info:
            _check_info_name(name, self.log_info)
        sizes, steps, batch = self.hidden_sizes, self.total_timesteps, self.batch_size
        if not isinstance(sizes, tuple) or not all(type(size) is int for size in sizes):
            raise TypeError(f"hidden_sizes = {shown(sizes)}: must be a tuple of whole numbers")
        if any(size < 1 for size in sizes):
            raise ValueError(f"hidden_sizes = {sizes}: must all be at least 1")
        for size in (self.num_envs, self.num_steps, self.core_size, *sizes):
            if size >= 2**31:
                raise ValueError(f"{shown(size)}: num_envs, num_steps and sizes are below 2**31")
        for name in self.core_inputs:
            if name not in _CORE_INPUTS:
                raise ValueError(unknown("input of a core", name, list(_CORE_INPUTS)))
        if self.core_inputs and self.core == "none":
            raise ValueError(f"core_inputs = {self.core_inputs}: there is no core (core = 'none')")
        if batch > steps:
            what = f"one rollout must not be longer than total_timesteps = {steps}"
            raise ValueError(f"num_envs * num_steps = {batch}: {what}")
        if self.num_updates >= 2**31:
            what = f"must be less than 2**31 rollouts of {batch}"
            raise ValueError(f"total_timesteps = {steps}: {what}")
        for name, (allowed, is_allowed) in _RANGES.items():
            check_range(name, getattr(self, name), allowed, is_allowed)
        return self


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """The worker processes of A3C, and how their gradients are applied."""

    num_workers: int = 4  # Worker processes.
    envs_per_worker: int = 1  # Environments that step together in each worker.
    max_staleness: int | None = None
    """Reject gradients whose parameters are more versions old than this; by default none."""
    staleness_scaling: bool = False
    """Divide the learning rate by a gradient's staleness, if above 1 (arXiv 1511.05950)."""
    delay_compensation: Literal["none", "dc_asgd_c", "dc_asgd_a"] = "none"
    """Correct a stale gradient to first order (arXiv 1609.08326; see rljax/a3c/corrections.py)."""
    compensation: float = 0.04  # Lambda of dc_asgd_c, and lambda_0 of dc_asgd_a.
    compensation_decay: float = 0.95  # Decay of dc_asgd_a's mean of squared gradients.
    max_worker_restarts: int = 3  # Restarts of a worker that died, within 1,000 of its gradients.
    lockstep: bool = False  # Workers take turns, so that the same seed gives the same bits.
    log_timing: bool = False
    """Also measure how long work, transit and service take (see rljax/a3c/timing.py), for
    simulations with measured:RUN_DIR."""

    def __str__(self):
        return f"{self.num_workers} worker{'s' * (self.num_workers > 1)}"

    def validate(self) -> "WorkerConfig":
        """Checks every option, as `Config.validate` does."""
        check(self, num_workers=1, envs_per_worker=1, max_staleness=0, max_worker_restarts=0)
        check_range("compensation", self.compensation, *AT_LEAST_0)
        check_range("compensation_decay", self.compensation_decay, *SHARE)
        return self

    def settle(self, config: Config) -> Config:
        """The config of a run with these workers: `num_envs` are those of each worker. Raises
        ValueError or TypeError if either is wrong, or they do not fit."""
        self.validate()
        config = of_a_worker(config, self.envs_per_worker, "A3C")
        if config.vectorization != "sync":
            what = "A3C's workers are processes"
            raise ValueError(f"vectorization = {config.vectorization!r}: {what}")
        return config.validate()


def of_a_worker(config: Config, num_envs: int, algorithm: str) -> Config:
    """The config of each worker, not checked; raises ValueError if it has other environments."""
    if config.num_envs not in (1, num_envs):
        raise ValueError(f"num_envs = {config.num_envs}: {algorithm} has envs_per_worker instead")
    return dataclasses.replace(config, num_envs=num_envs)


def default_log_interval(config: Config) -> int:
    """Updates averaged into one row of metrics: a run of 100 or more has 50 to 100 rows."""
    return -(-config.num_updates // 100)


def at_row_end(config: Config, updates: int, log_interval: int) -> bool:
    """Whether a row of metrics ends after this number of updates of the run."""
    return updates % log_interval == 0 or updates == config.num_updates


_COUNTS = ("total_timesteps", "num_envs", "num_steps", "frame_stack", "core_size", "env_processes")
_CORE_INPUTS = ("last_action", "last_reward")
_RANGES = {
    **dict.fromkeys(("gamma", "gae_lambda", "rmsprop_decay"), SHARE),
    **dict.fromkeys(("learning_rate", "ent_coef", "vf_coef"), AT_LEAST_0),
    "optimizer_eps": ABOVE_0,
    "max_grad_norm": ("above 0", lambda x: x > 0),
    **dict.fromkeys(("log_std_init", "forget_bias"), ("finite", np.isfinite)),
}
"""What is allowed of a float, by its name."""
FLOAT_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is float)
STATIC_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is not float)


def _check_info_name(name, names):
    """It is a column of tables, whose lines are split at commas."""
    if not name.isprintable() or name != name.strip() or not name or set(name) & {",", '"'}:
        what = "must be printable, without commas, quotes or spaces around it"
        raise ValueError(f"log_info: {shown(name)}: {what}")
    if names.count(name) > 1:
        raise ValueError(f"log_info: {name!r}: is there twice")


def _wrapper(item):
    """A wrapper with its value as text, which `values.read` reads: "NAME=VALUE", or (function,
    "VALUE"). A value that is text already is such text."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        return item
    what, value = item
    text = value if isinstance(value, str) else values.text_of(value)
    if text is None:
        kinds = f"must be {values.ALLOWED}, and finite"
        raise TypeError(f"wrappers: {shown(what)} = {shown(value)}: {kinds}")
    return f"{what}={text}" if isinstance(what, str) else (what, text)


def _is_wrapper(item):
    if isinstance(item, tuple):
        return len(item) == 2 and callable(item[0]) and isinstance(item[0], Hashable)
    return isinstance(item, str) or (callable(item) and isinstance(item, Hashable))


def _is_names(value):
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)
