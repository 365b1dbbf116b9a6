"""The learning settings, their checks, and the presets.

This module imports neither JAX nor Flax, so that a script can read its flags and answer
`--help` at once. `rljax.types` registers `Config` as a pytree when JAX is in use.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np

KeyValues = tuple[tuple[str, bool | int | float | str], ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an actor-critic learner.

    The floats are the leaves of a pytree: under `jax.jit` they are traced, so that new values
    compile nothing, and a `Config` whose floats are arrays can be `vmap`ped. Everything else is
    static. Seeds and the options of a run are not settings of the learner and are not in here.
    """

    env: str = "CartPole-v1"
    """A gymnax id or 'package.module:attribute'; in Python also an environment object."""
    env_kwargs: KeyValues = ()
    """Keyword arguments of the environment's constructor; in Python also a dict."""
    env_params: KeyValues = ()
    """Overrides of its parameters, such as max_steps_in_episode=200; in Python also a dict."""

    total_timesteps: int = 500_000
    """Environment steps of the run, over all environments; rounded up to whole rollouts."""
    num_envs: int = 16
    """Environments that step together."""
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
                object.__setattr__(self, name, tuple(sorted(value.items())))
        if isinstance(self.hidden_sizes, list):
            object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))

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
        if self.batch_size > self.total_timesteps:
            raise ValueError(
                f"num_envs * num_steps = {self.batch_size}: one rollout must not be longer than"
                f" total_timesteps = {self.total_timesteps}"
            )
        for name in ("gamma", "gae_lambda", "rmsprop_decay"):
            _check_range(name, getattr(self, name), "in [0, 1]", lambda x: (x >= 0) & (x <= 1))
        for name in ("learning_rate", "ent_coef", "vf_coef"):
            _check_range(name, getattr(self, name), "finite and at least 0", _finite_from_zero)
        _check_range("optimizer_eps", self.optimizer_eps, "finite and above 0", _finite_above_zero)
        _check_range("max_grad_norm", self.max_grad_norm, "above 0", lambda x: x > 0)
        _check_range("log_std_init", self.log_std_init, "finite", np.isfinite)
        return self


FLOAT_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is float)
STATIC_FIELDS = tuple(f.name for f in dataclasses.fields(Config) if f.type is not float)

_MINATAR = dict(
    total_timesteps=2_500_000,
    num_steps=8,
    hidden_sizes=(128,),
    activation="relu",
    shared_torso=True,
)

PRESETS: dict[tuple[str, str], dict] = {
    # All use TensorFlow's RMSProp, because its statistics start at 1: the first steps are small, so
    # that learning rates ten times the usual are safe. With the other flavours, or Adam, these
    # would saturate the critic's tanh units for good.
    # Above each, the search that found it, and what is unusual in it.
    #
    # tune.py --env CartPole-v1 --total-timesteps 300000 --num-steps 8 --points 24 --num-seeds 8
    #   --axis learning_rate=log:5e-3:4e-2 gae_lambda=0.9,0.95,1 ent_coef=0,0.003
    ("a2c", "CartPole-v1"): dict(
        total_timesteps=300_000, num_steps=8, gae_lambda=0.95, learning_rate=1.5e-2
    ),
    # tune.py --env Acrobot-v1 --num-steps 16 --points 12 --num-seeds 8 --search-seed 1
    #   --axis learning_rate=log:2.5e-2:1e-1 ent_coef=0,0.003 gae_lambda=0.9,0.95
    ("a2c", "Acrobot-v1"): dict(num_steps=16, gae_lambda=0.9, learning_rate=3.8e-2),
    # tune.py --env Pendulum-v1 --total-timesteps 1000000 --num-steps 16 --normalize-observations
    #   --normalize-rewards --points 32 --num-seeds 3
    #   --axis learning_rate=log:1e-3:3e-2 gae_lambda=0.8,0.9,0.95 gamma=0.9,0.95 log_std_init=-1,0
    #   ent_coef=0,0.003
    # A short horizon: what an action does shows within a second, and rewards are never sparse. The
    # entropy bonus keeps the standard deviation from collapsing before the swing-up is found.
    ("a2c", "Pendulum-v1"): dict(
        total_timesteps=1_000_000,
        num_steps=16,
        gamma=0.95,
        gae_lambda=0.8,
        ent_coef=0.003,
        learning_rate=2e-2,
        normalize_observations=True,
        normalize_rewards=True,
    ),
    # tune.py --env MountainCar-v0 --total-timesteps 1000000 --num-steps 16 --normalize-observations
    #   --normalize-rewards --points 24 --num-seeds 3
    #   --axis learning_rate=log:1e-3:5e-2 gae_lambda=0.9,0.95,1 gamma=0.99,0.995
    #   ent_coef=0,0.01,0.03
    # Until the flag is reached once, every episode returns -200: standardised observations make the
    # fresh policy swing with the velocity often enough, and a long horizon carries the news back.
    ("a2c", "MountainCar-v0"): dict(
        total_timesteps=1_000_000,
        num_steps=16,
        gamma=0.995,
        ent_coef=0.01,
        learning_rate=1.5e-2,
        normalize_observations=True,
        normalize_rewards=True,
    ),
    # tune.py --env MountainCarContinuous-v0 --total-timesteps 1000000 --num-steps 64
    #   --normalize-observations --normalize-rewards --points 24 --num-seeds 3
    #   --axis learning_rate=log:1e-3:3e-2 gae_lambda=0.9,0.95,1 gamma=0.99,0.999 log_std_init=0,1,2
    #   ent_coef=0,0.01,0.05
    # As above, and long rollouts: doing nothing costs nothing, so the flag's reward must be seen
    # from far away before the price of pushing has taught the policy to stand still.
    ("a2c", "MountainCarContinuous-v0"): dict(
        total_timesteps=1_000_000,
        num_steps=64,
        gamma=0.999,
        learning_rate=2.5e-3,
        normalize_observations=True,
        normalize_rewards=True,
    ),
    # tune.py --env Catch-bsuite --total-timesteps 200000 --num-steps 8
    #   --axis learning_rate=log:1e-3:3e-2 gae_lambda=0.9,0.95,1 ent_coef=0,0.01
    ("a2c", "Catch-bsuite"): dict(total_timesteps=200_000, num_steps=8, learning_rate=1e-2),
    # tune.py --env ID --num-steps 8 --hidden-sizes 128 --activation relu --shared-torso
    #   --total-timesteps 1500000 --points 6 --num-seeds 1
    #   --axis learning_rate=log:5e-3:2e-2 ent_coef=0.01,0.03 gae_lambda=0.6,0.8,0.95
    # The network of MinAtar's authors; half of their five million steps is enough for three of the
    # games. Small batches: with eight times as large ones, though with dense layers alone, Asterix
    # had not begun to be learnt after two million steps.
    ("a2c", "Breakout-MinAtar"): dict(
        _MINATAR, total_timesteps=5_000_000, gae_lambda=0.6, ent_coef=0.03, learning_rate=1.2e-2
    ),
    ("a2c", "Asterix-MinAtar"): dict(
        _MINATAR, gae_lambda=0.8, ent_coef=0.03, learning_rate=1.15e-2
    ),
    ("a2c", "SpaceInvaders-MinAtar"): dict(
        _MINATAR, gae_lambda=0.95, ent_coef=0.03, learning_rate=1.05e-2
    ),
    # As above, with --total-timesteps 2500000 --normalize-rewards --points 2 --search-seed 2
    #   --axis learning_rate=log:5e-3:1e-2 ent_coef=0.01 gae_lambda=0.95
    # Rewards are rare until the road is crossed on purpose; unscaled, one seed in two was slow.
    ("a2c", "Freeway-MinAtar"): dict(
        _MINATAR,
        gae_lambda=0.95,
        ent_coef=0.01,
        learning_rate=6e-3,
        normalize_rewards=True,
    ),
}


def preset(algorithm: str, name: str) -> Config:
    """The tuned settings for an algorithm on an environment.

    Args:
        algorithm: such as "a2c".
        name: the environment's id, such as "CartPole-v1".

    Raises:
        ValueError: there is no such preset; the message offers the nearest names.
    """
    if (algorithm, name) not in PRESETS:
        names = [env for algo, env in PRESETS if algo == algorithm]
        raise ValueError(unknown(f"{algorithm} preset", name, names))
    return Config(env=name, **PRESETS[algorithm, name])


def unknown(kind: str, name: str, known: list[str]) -> str:
    """An error message for an unknown name that offers the nearest known ones."""
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
    offer = f"known are {', '.join(known) or 'none'}"
    if near:
        offer = f"did you mean {' or '.join(by_lower[k] for k in near)}?"
    return f"unknown {kind} {name!r}: {offer}"


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
    try:
        found = importlib.import_module(module_name)
    except (ModuleNotFoundError, TypeError, ValueError) as error:
        raise ValueError(f"{path!r}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path!r}: {module_name} has no attribute {attribute!r}")
        found = getattr(found, part)
    return found


def _check_type(field, value):
    name = field.name
    if name in ("env", "network"):  # a name or an object; `make` judges which
        if not isinstance(value, Hashable):
            raise TypeError(f"{name} = {value!r}: must be hashable, such as a frozen dataclass")
    elif field.type is float:
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} = {value!r}: must be a number")
    elif field.type is int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} = {value!r}: must be a whole number")
    elif field.type is bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} = {value!r}: must be True or False")
    elif name == "hidden_sizes":
        if not isinstance(value, tuple) or not all(type(size) is int for size in value):
            raise TypeError(f"{name} = {value!r}: must be a tuple of whole numbers")
    elif name in ("env_kwargs", "env_params"):
        pairs = isinstance(value, tuple) and all(isinstance(pair, tuple) for pair in value)
        if not pairs or not all(len(pair) == 2 for pair in value):
            raise TypeError(f"{name} = {value!r}: must be a dict")
        for key, item in value:
            if not isinstance(item, bool | int | float | str):
                raise TypeError(f"{name}: {key} = {item!r}: must be a number, a bool or a string")
    elif value not in field.type.__args__:
        raise ValueError(unknown(name, str(value), list(field.type.__args__)))


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
