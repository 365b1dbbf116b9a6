"""The learning settings and their checks.

This module imports neither JAX nor Flax, so that a script can read its flags and answer
`--help` at once. `rljax.types` registers `Config` as a pytree when JAX is in use.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from rljax.utils import errors, values

KeyValues = tuple[tuple[str, Any], ...]
"""Of what `values` describes."""


MAX_EPISODE_STEPS = 10_000
"""An evaluation's episode that has not ended by itself after so many steps is cut, if nothing is
said: ten times the limit of MuJoCo's and most others, and a million steps for a hundred episodes,
which one may still wait for. Atari's limit is 27,000 steps, which one must ask for."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an actor-critic learner.

    The floats are the leaves of a pytree: under `jax.jit` they are traced, so that new values
    compile nothing, and a `Config` whose floats are arrays can be `vmap`ped. Everything else is
    static. Seeds and the options of a run are not settings of the learner and are not in here.
    """

    env: str = "CartPole-v1"
    """A gymnax id, a gymnasium id, or 'package.module:attribute'; in Python also an object. The
    prefixes gymnax/ and gymnasium/ choose between the two."""
    env_kwargs: KeyValues = ()
    """Keyword arguments of the environment's constructor, each a value as Python or JSON writes it:
    a number, true, false, None, a list, tuple or dict; all else is text. In Python also a dict."""
    env_params: KeyValues = ()
    """Overrides of its parameters, such as max_steps_in_episode=200; in Python also a dict."""

    total_timesteps: int = 500_000
    """Environment steps of the run, over all environments; rounded up to whole rollouts."""
    num_envs: int = 16
    """Environments that step together."""
    vectorization: Literal["sync", "async"] = "sync"
    """Gymnasium's environments: one after another in this process, or each in a process of its own.
    It changes no result."""
    num_steps: int = 5
    """Steps of every environment between two updates: the rollout's length."""

    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 1.0
    """Lambda of GAE (arXiv 1506.02438); 1 gives n-step returns."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    normalize_advantage: bool = False
    """Give the advantages of a batch mean 0 and standard deviation 1."""
    loss_reduction: Literal["mean", "sum"] = "mean"
    """Over the batch: A2C takes the mean, the A3C paper the sum."""

    optimizer: Literal["rmsprop_tf", "rmsprop_torch", "rmsprop_a3c", "adam"] = "rmsprop_tf"
    """RMSProp as in TensorFlow and baselines, PyTorch and SB3, or the A3C paper; or Adam."""
    learning_rate: float = 7e-4
    """Step size of the optimiser."""
    anneal_lr: bool = True
    """Bring the learning rate down to 0, in a straight line over the run."""
    rmsprop_decay: float = 0.99
    """Decay of RMSProp's running mean of squared gradients."""
    optimizer_eps: float = 1e-5
    """Epsilon of the optimiser."""
    max_grad_norm: float = 0.5
    """Larger gradients are scaled down to this global norm; inf turns it off."""

    network: str = "auto"
    """Torso: mlp, cnn, auto (cnn for images), 'package.module:attribute' or a linen module."""
    channels: Literal["auto", "last", "first"] = "auto"
    """Axis of an image's channels, for the cnn: auto takes the short one."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the dense layers."""
    activation: Literal["tanh", "relu", "elu", "gelu", "silu"] = "tanh"
    """Activation between the layers."""
    shared_torso: bool = False
    """One torso for policy and value instead of one each."""
    action_bounds: Literal["clip", "tanh"] = "clip"
    """Continuous actions: clip them, or squash them by tanh (with exact log-probability)."""
    log_std_init: float = 0.0
    """Initial logarithm of a continuous policy's standard deviation."""

    normalize_observations: bool = False
    """Standardise observations by running moments."""
    normalize_rewards: bool = False
    """Divide rewards by the running standard deviation of the discounted return."""

    def __post_init__(self):
        for name in ("env_kwargs", "env_params"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                value = tuple(sorted(value.items(), key=lambda pair: str(pair[0])))
            if _is_pairs(value):
                value = tuple((key, values.frozen(item)) for key, item in value)
                for key, item in value:
                    if hasattr(item, "dtype"):  # before JAX finds that it cannot be hashed
                        raise TypeError(
                            f"{name}: {key} = {_shown(item)}: must be a value and no array; it is"
                            f" static, and what a sweep varies as its axis {name}.{key}"
                        )
            object.__setattr__(self, name, value)
        if isinstance(self.hidden_sizes, list):
            object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))

    def __eq__(self, other):
        if not isinstance(other, Config):
            return NotImplemented
        same = tuple(vars(self).values()) == tuple(vars(other).values())
        return same and self.typed_kwargs == other.typed_kwargs

    @property
    def typed_kwargs(self) -> str:
        """What the environment is made with, types included. To Python 1, 1.0 and True are equal,
        and what was compiled for one would serve the others."""
        return repr((self.env_kwargs, self.env_params))

    @property
    def batch_size(self) -> int:
        """Environment steps between two updates: num_envs * num_steps."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates of the whole run: total_timesteps, rounded up to whole batches."""
        return -(-self.total_timesteps // self.batch_size)

    @property
    def log_interval(self) -> int:
        """Updates averaged into one row of metrics: a run of 100 or more has 50 to 100 rows."""
        return -(-self.num_updates // 100)

    def ends_row(self, updates: int) -> bool:
        """Whether a row of metrics ends after so many updates of the run."""
        return updates % self.log_interval == 0 or updates == self.num_updates

    def validate(self) -> "Config":
        """Checks every setting; runs on the host, before anything is traced.

        Returns:
            The config itself.

        Raises:
            ValueError: a setting is out of its range; the message names it and what is allowed.
            TypeError: a setting is of another type.
        """
        for field in dataclasses.fields(self):
            _check_type(field, getattr(self, field.name))
        for name in ("total_timesteps", "num_envs", "num_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes = {self.hidden_sizes}: must all be at least 1")
        for size in (self.num_envs, self.num_steps, *self.hidden_sizes):
            if size >= 2**31:
                raise ValueError(f"{_shown(size)}: num_envs, num_steps and sizes are below 2**31")
        if self.batch_size > self.total_timesteps:
            raise ValueError(
                f"num_envs * num_steps = {self.batch_size}: one rollout must not be longer than"
                f" total_timesteps = {self.total_timesteps}"
            )
        if self.num_updates >= 2**31:
            raise ValueError(
                f"total_timesteps = {self.total_timesteps}: must be less than 2**31 rollouts of"
                f" {self.batch_size}"
            )
        for name in ("gamma", "gae_lambda", "rmsprop_decay"):
            _check_range(name, getattr(self, name), "in [0, 1]", lambda x: (x >= 0) & (x <= 1))
        for name in ("learning_rate", "ent_coef", "vf_coef"):
            _check_range(name, getattr(self, name), "finite and at least 0", _finite_from_zero)
        _check_range("optimizer_eps", self.optimizer_eps, "finite and above 0", _finite_above_zero)
        _check_range("max_grad_norm", self.max_grad_norm, "above 0", lambda x: x > 0)
        _check_range("log_std_init", self.log_std_init, "finite", np.isfinite)
        return self


@dataclasses.dataclass(frozen=True)
class WorkerConfig:
    """The processes of A3C, and what becomes of their gradients."""

    num_workers: int = 4
    """Worker processes."""
    envs_per_worker: int = 1
    """Environments that step together in each worker."""
    max_staleness: int | None = None
    """Gradients of parameters older than so many versions are rejected; by default none is."""
    staleness_scaling: bool = False
    """Divide the learning rate by a gradient's staleness, where that is above 1 (arXiv
    1511.05950)."""
    max_worker_restarts: int = 3
    """How often a worker that died is started again within 1,000 of its gradients."""
    lockstep: bool = False
    """Workers take turns, so that the same seed gives the same bits."""

    def validate(self) -> "WorkerConfig":
        """Checks every option.

        Raises:
            ValueError, TypeError: as `Config.validate` does.
        """
        least = {"num_workers": 1, "envs_per_worker": 1, "max_staleness": 0}
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name == "max_staleness" and value is None:
                continue
            if field.type is bool:
                _check_type(field, value)
                continue
            if type(value) is not int:
                raise TypeError(f"{name} = {value!r}: must be a whole number")
            if value < least.get(name, 0):
                raise ValueError(f"{name} = {value}: must be at least {least.get(name, 0)}")
        return self


FLOAT_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is float)
STATIC_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is not float)


def unknown(kind: str, name: str, known: list[str]) -> str:
    """An error message for an unknown name that offers the nearest known ones."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    offer = f"known are {', '.join(known) or 'none'}"
    if near:
        offer = f"did you mean {' or '.join(by_lower[k] for k in near)}?"
    return f"unknown {kind} {name!r}: {offer}"


def reworded(error: Exception, text: str) -> Exception:
    """An error to raise instead of another, with other words: a TypeError or a ValueError, for the
    constructors of their subclasses need not take a text."""
    return (TypeError if isinstance(error, TypeError) else ValueError)(text)


def differing(records: Sequence[Mapping]) -> list[str]:
    """The names whose values are not the same in all records; one that is absent is None."""
    names = dict.fromkeys(name for record in records for name in record)
    return [n for n in names if any(r.get(n) != records[0].get(n) for r in records)]


def load_attribute(path: str):
    """The object that 'package.module:attribute' names.

    Raises:
        ValueError: there is no such module or attribute.
    """
    module_name, _, attribute = path.partition(":")
    found = load_module(path, module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r}: {module_name} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def load_module(path: str, module_name: str):
    """The module that a path names.

    Raises:
        ValueError: there is none, or it cannot be imported; the message names the path.
    """
    try:
        return importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ValueError(f"{path!r}: {error}") from error
    except BaseException as error:  # whatever the module does, exits among it
        if errors.is_interrupt(error):
            raise
        raise ValueError(f"{path!r}: {errors.in_a_line(error)}") from error


def _check_type(field, value):
    name = field.name
    if name in ("env", "network"):  # a name or an object; `make` judges which
        if not isinstance(value, Hashable):
            what = "must be hashable, such as a frozen dataclass"
            raise TypeError(f"{name} = {_shown(value)}: {what}")
    elif field.type is float:
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} = {_shown(value)}: must be a number")
        if isinstance(value, int) and abs(value) >= 2**1024:
            raise ValueError(f"{name} = {_shown(value)}: must be a number that a float can be")
    elif field.type is int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} = {_shown(value)}: must be a whole number")
    elif field.type is bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} = {_shown(value)}: must be True or False")
    elif name == "hidden_sizes":
        if not isinstance(value, tuple) or not all(type(size) is int for size in value):
            raise TypeError(f"{name} = {_shown(value)}: must be a tuple of whole numbers")
    elif name in ("env_kwargs", "env_params"):
        if not _is_pairs(value) or not all(isinstance(key, str) for key, _ in value):
            raise TypeError(f"{name} = {_shown(value)}: must be a dict, its keys strings")
        for key, item in value:
            if name == "env_params" and not isinstance(item, bool | int | float | str):
                allowed = "must be a number, a bool or a string"
                raise TypeError(f"{name}: {key} = {_shown(item)}: {allowed}")
            if not values.is_value(item):
                raise TypeError(f"{name}: {key} = {_shown(item)}: must be {values.ALLOWED}")
    elif value not in field.type.__args__:
        raise ValueError(unknown(name, _shown(value).strip("'"), list(field.type.__args__)))


def _is_pairs(value):
    return isinstance(value, tuple) and all(isinstance(x, tuple) and len(x) == 2 for x in value)


def _shown(value):
    """In one short line."""
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        text = "something nested very deeply"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _check_range(name, value, allowed, is_allowed):
    try:
        value = np.asarray(value)
    except TypeError:
        return  # traced: there is no value yet
    if not np.all(is_allowed(value)):
        raise ValueError(f"{name} = {value}: must be {allowed}")


def _finite_from_zero(x):
    return np.isfinite(x) & (x >= 0)


def _finite_above_zero(x):
    return np.isfinite(x) & (x > 0)
