"""The actor-critic network: a torso, a policy head and a value head."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rljax.config import Config
from rljax.envs import encoding, spaces
from rljax.envs.interface import EnvSpec
from rljax.envs.spaces import ActionSpace, Box, Discrete, Numbers, Parts
from rljax.networks import cores, torsos
from rljax.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian
from rljax.networks.layers import dense
from rljax.utils import pytrees


class ActorCritic(nn.Module):
    """A policy head and a value head, each on a torso of its own or both on a shared one."""

    make_torso: Callable[[], nn.Module]
    shared_torso: bool
    action_space: ActionSpace
    action_bounds: str
    log_std_init: float
    make_core: Callable[[], nn.Module] | None = None
    core_inputs: tuple[str, ...] = ()
    pieces: Parts | None = None  # with it, the torso takes the parts of observations
    scale: float = 1.0  # of observations that are not float32 yet, for `blocks.inputs`
    is_q: bool = False
    """The actor's head gives action values Q(s, a): the policy is greedy in them, as a
    `Categorical` whose mode and samples are the best action, and V(s) is their maximum."""

    def setup(self):
        self.actor_torso = self.make_torso()
        self.critic_torso = self.actor_torso if self.shared_torso else self.make_torso()
        if self.make_core:
            self.actor_core = self.make_core()
            self.critic_core = self.actor_core if self.shared_torso else self.make_core()
        size = spaces.width(self.action_space)
        self.actor_head = dense(size, gain=0.01)
        self.critic_head = dense(1, gain=1.0)
        if isinstance(self.action_space, Box):
            init = nn.initializers.constant(self.log_std_init)
            self.log_std = self.param("log_std", init, (size,))

    def __call__(self, obs, mask=None, carry=()):
        """(distribution, values [B]) for observations [B, *obs_shape] and a mask, bool
        [B, *mask_shape], of the valid actions; None if all are valid. `carry` is a `cores.Carry`
        where there is a core."""
        features = self.torsos(obs)
        if self.make_core:
            all_cores = (self.actor_core, self.critic_core)
            steps = (self._recurred(all_cores[i], carry, i, x) for i, x in enumerate(features))
            features = [out for _, out in steps]
        return self.heads(features, mask)

    def actor(self, obs, mask=None, carry=()):
        """(the distribution over actions alone, the cores' carries, of which the actor's is one
        step on; () without a core)."""
        features, carries = self._features(self.actor_torso, obs), ()
        if self.make_core:
            carries, features = self._recurred(self.actor_core, carry, 0, features)
            carries = (carries, *carry.cores[1:])
        return self._distribution(features, mask), carries

    def critic(self, obs, carry=()):
        """The values [B] alone."""
        features = self._features(self.critic_torso, obs)
        if self.make_core:
            _, features = self._recurred(self.critic_core, carry, -1, features)
        return self._values(features)

    def q_values(self, obs):
        """Q [B, A], of a network that `is_q`."""
        return self.actor_head(self._features(self.actor_torso, obs))

    def torsos(self, obs):
        """The features [B, F] of the actor's and the critic's torso, or those of a shared one."""
        torsos = (self.actor_torso, self.critic_torso)[: 1 if self.shared_torso else 2]
        return tuple(self._features(torso, obs) for torso in torsos)

    def unroll(self, features, extras, carries, done):
        """A rollout of all cores: (outputs [T, B, H], the cores' carries [T, B, ...] after each
        step) of the features [T, B, F] of `torsos` and extras, [T, B, ...], the carries [B, ...]
        before the first step, and whether the episode ended, bool [T, B]."""
        all_cores = (self.actor_core, self.critic_core)
        inputs = (jnp.concatenate([x, *extras], axis=-1) for x in features)
        rows = zip(all_cores, carries, inputs)
        after, outputs = zip(*(cores.unroll(*row, done) for row in rows))
        return outputs, after

    def heads(self, features, mask=None):
        """(distribution, values [B]) for what the torsos, or the cores, give."""
        return self._distribution(features[0], mask), self._values(features[-1])

    def _recurred(self, core, carry, index, features):
        inputs = jnp.concatenate([features, *cores.extras(carry)], axis=1)
        given, result, name = (
            carry.cores[index],
            core(carry.cores[index], inputs),
            type(core).__name__,
        )
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f"core {name}: must give (carry, outputs), not {_told(result)}")
        carries, out = result
        if _told(carries) != _told(given):
            wanted = f"a carry like the one it is given, {_told(given)}"
            raise ValueError(f"core {name}: must give {wanted}, not {_told(carries)}")
        shape = getattr(out, "shape", None)
        if shape is None or len(shape) != 2 or len(out) != len(features):
            came = shape or type(out).__name__
            wanted = f"outputs [B, H] for inputs of shape {inputs.shape}"
            raise ValueError(f"core {name}: must give {wanted}, not {came}")
        return carries, out

    def _features(self, torso, obs):
        features = torso(obs if self.pieces is None else encoding.split(self.pieces, obs))
        shape = getattr(features, "shape", None)
        if shape is None or len(shape) != 2 or len(features) != len(obs):
            wanted = f"features [B, F] for observations of shape {obs.shape}"
            came = shape or type(features).__name__
            raise ValueError(f"network {type(torso).__name__}: must give {wanted}, not {came}")
        return features

    def _values(self, features):
        if self.is_q:
            return jnp.max(self.actor_head(features), axis=-1)
        return self.critic_head(features)[:, 0]

    def _distribution(self, features, mask):
        out, space = self.actor_head(features), self.action_space
        if isinstance(space, Box):
            kind = TanhGaussian if self.action_bounds == "tanh" else Gaussian
            rows = (jnp.asarray(x, jnp.float32) for x in (self.log_std, space.low, space.high))
            return kind(out, *(jnp.broadcast_to(row[None], out.shape) for row in rows))
        logits = out.reshape(-1, *space.mask_shape)
        if mask is not None:
            logits = jnp.where(mask, logits, -jnp.inf)
        if self.is_q:
            best = jax.nn.one_hot(jnp.argmax(logits, axis=-1), space.n, dtype=bool)
            logits = jnp.where(best, 0.0, -jnp.inf)
        if isinstance(space, Discrete):
            return Categorical(logits)
        return MultiCategorical(jnp.where(spaces.is_action(space)[None], logits, -jnp.inf))


def _told(tree):
    """A pytree in words, such as (float32[2, 4], float32[2, 4])."""

    def of_leaf(x):
        return f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else type(x).__name__

    return str(jax.tree.map(of_leaf, tree)).replace("'", "")


class Raveled(NamedTuple):
    """A network whose variables are one vector, as `pytrees.ravel` makes it, and so are its
    gradients."""

    network: ActorCritic
    shapes: Any  # of its variables

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
        recorded = {}  # of `layers.reuse`
        if isinstance(variables, Mapping):
            recorded = {n: x for n, x in variables.items() if n != "raveled"}
            variables = variables["raveled"]
        return self.network.apply({**self._unravel(variables), **recorded}, *args, **kwargs)

    def _unravel(self, vector):
        """`pytrees.unravel`, whose gradient is one concatenation instead of a sum of padded
        slices."""

        @jax.custom_vjp
        def unraveled(vector):
            return pytrees.unravel(vector, self.shapes)

        unraveled.defvjp(lambda x: (unraveled(x), None), lambda _, grads: (pytrees.ravel(grads),))
        return unraveled(vector)


def make(config: Config, spec: EnvSpec) -> ActorCritic:
    """The network of a config, for an environment.

    Raises:
        ValueError: an unknown torso, one that does not fit the observations, tanh-squashed
            actions without finite bounds, or Q values of other than one discrete action.
        TypeError: the torso is no linen module.
    """
    bounds = spec.action_space[1:] if isinstance(spec.action_space, Box) else ()
    if config.action_bounds == "tanh" and not np.all(np.isfinite(bounds)):
        raise ValueError(f"action_bounds = 'tanh': {spec.name} has actions without finite bounds")
    is_q = config.heads == "q"
    if is_q and not isinstance(spec.action_space, Discrete):
        kind = "continuous" if isinstance(spec.action_space, Box) else "several"
        what = f"its actions are {kind}, and DQN (heads = 'q') chooses one of a few"
        raise ValueError(f"{spec.name}: {what}; a2c and a3c can act in it")
    is_own = not isinstance(config.network, str) or ":" in config.network
    return ActorCritic(
        make_torso=torsos.choose(config, spec).make,
        shared_torso=config.shared_torso or is_q,
        action_space=spec.action_space,
        action_bounds=config.action_bounds,
        log_std_init=config.log_std_init,
        make_core=cores.choose(config),
        core_inputs=config.core_inputs,
        pieces=spec.observation if is_own and isinstance(spec.observation, Parts) else None,
        scale=getattr(spec.observation, "scale", 1.0),
        is_q=is_q,
    )


def init(config: Config, network: ActorCritic, spec: EnvSpec, key: jax.Array) -> Any:
    """Initial variables of a network from `make`: its parameters.

    Raises:
        ValueError: it has other variables, such as the statistics of batch normalisation, which the
            optimiser must not train, or draws random numbers when it is applied.
    """
    name, obs = f"network = {config.network!r}", jnp.zeros((1, *spec.obs_shape))
    name += f" with core = {config.core!r}" if network.make_core else ""
    carry = cores.initial(network, 1)
    variables = network.init(key, obs, None, carry)
    others = ", ".join(repr(collection) for collection in variables if collection != "params")
    if others:
        why = "only 'params' are trained and kept, so that a network must have no others"
        instead = "nn.LayerNorm instead of nn.BatchNorm, for example"
        raise ValueError(f"{name}: has variables in {others}; {why} ({instead})")
    try:
        jax.eval_shape(network.apply, variables, obs, None, carry)
    except flax.errors.InvalidRngError as error:
        why = str(error).partition(" (https")[0]
        raise ValueError(f"{name}: draws random numbers when applied ({why})") from error
    return variables


def describe(config: Config, spec: EnvSpec) -> dict:
    """What `make` chooses, for the record: the torso, the axis of channels if it is a CNN, and the
    shape and scale of observations."""
    torso = torsos.choose(config, spec)
    record = {"torso": torso.name}
    if torso.name == "CNN":
        record["channels"] = torso.settings["channels"]
    record["observation"] = list(spec.obs_shape)
    if isinstance(spec.observation, Numbers):
        record["observation_scale"] = spec.observation.scale
    return record
