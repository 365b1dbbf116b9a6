"""Policies' distributions over actions.

Chance enters as `noise`, drawn from a key ahead of time, so that a rollout draws it for all its
steps at once; `sample` is then a deterministic function. Every field is [..., A].
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs.spaces import ActionSpace, Box

_LOG_2PI = float(np.log(2 * np.pi))
_FEW = 32
_LOGISTIC = (
    (0.11778512, 0.49483530),
    (0.47339246, 0.72813815),
    (0.35659640, 1.07375914),
    (0.05222601, 1.58635354),
)
"""Shares and standard deviations of centred normals whose mixture is the density sech(u)^2 / 2: the
least maximal error of its integral and of its integral's, found by least squares."""


def noise(space: ActionSpace, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The chance that `sample` needs for actions [*shape].

    Returns:
        Uniform numbers, [*shape] for one discrete action or [*shape, A] for several, or normal ones
        [*shape, A] for continuous actions.
    """
    if isinstance(space, Box):
        return jax.random.normal(key, (*shape, space.size))
    return jax.random.uniform(key, (*shape, *space.mask_shape[:-1]))


class Categorical(NamedTuple):
    """Actions 0, ..., A - 1 with probabilities softmax(logits); -inf is an invalid action's."""

    logits: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [...], by inverting the distribution function at uniform noise [...].

        An action of probability 0 is not drawn: the noise is below 1, and its interval of the
        distribution function is empty. Of many actions, XLA's cumulative sum can round such an
        interval open: who falls into it takes the mode.
        """
        shares = jnp.exp(self.logits - _max(self.logits))
        cdf = jnp.cumsum(shares, axis=-1)
        below = noise[..., None] * cdf[..., -1:] >= cdf[..., :-1]
        action = jnp.sum(below, axis=-1, dtype=jnp.int32)
        if self.logits.shape[-1] <= _FEW:
            return action
        drawn = jnp.take_along_axis(shares, action[..., None], axis=-1)[..., 0]
        return jnp.where(drawn > 0, action, self.mode())

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] of actions int32 [...]."""
        taken = jax.nn.one_hot(action, self.logits.shape[-1], dtype=bool)
        return _sum(jnp.where(taken, self._log_probs(), 0.0))

    def entropy(self) -> jax.Array:
        log_probs = self._log_probs()
        # exp(-inf) * -inf is NaN; an impossible action carries no entropy.
        return -_sum(jnp.exp(log_probs) * jnp.maximum(log_probs, -1e30))

    def _log_probs(self):
        logits = self.logits - jax.lax.stop_gradient(_max(self.logits))
        return logits - jnp.log(_sum(jnp.exp(logits)))[..., None]

    def to_env(self, action: jax.Array) -> jax.Array:
        """What the environment is given for a drawn action."""
        return action


class MultiCategorical(NamedTuple):
    """Several discrete actions at once, independent of each other: a `Categorical` for each row of
    the logits [..., A, N]. Rows shorter than the longest end in -inf."""

    logits: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [..., A], from uniform noise [..., A]."""
        return Categorical(self.logits).sample(noise)

    def mode(self) -> jax.Array:
        return Categorical(self.logits).mode()

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] of actions int32 [..., A]."""
        return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def to_env(self, action: jax.Array) -> jax.Array:
        return action


class Gaussian(NamedTuple):
    """Independent normal components; the environment is given them clipped to its bounds.

    The log-probability is that of the action before clipping, as in SB3 and baselines.
    """

    mean: jax.Array
    log_std: jax.Array
    low: jax.Array
    high: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        """float32 [..., A], from normal noise [..., A]."""
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] of actions before clipping [..., A]."""
        return jnp.sum(_normal_log_prob(action, self.mean, self.log_std), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(0.5 * (1 + _LOG_2PI) + self.log_std, axis=-1)

    def to_env(self, action: jax.Array) -> jax.Array:
        return jnp.clip(action, self.low, self.high)


class TanhGaussian(NamedTuple):
    """tanh of independent normal components, scaled to bounds.

    Actions are kept as the normal u from before the squashing, so that no inverse of tanh, which
    is infinite at the edges, is ever taken. With a = centre + scale tanh(u),
    log p(a) = log N(u) - log scale - log(1 - tanh(u)^2)  (arXiv 1801.01290, appendix C),
    where log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) is exact for large |u| as well.
    """

    mean: jax.Array
    log_std: jax.Array
    low: jax.Array
    high: jax.Array

    sample = Gaussian.sample  # before squashing, [..., A]
    mode = Gaussian.mode  # squashed, the median

    def log_prob(self, action: jax.Array) -> jax.Array:
        """[...] density of the squashed action, of actions before squashing [..., A]."""
        normal = _normal_log_prob(action, self.mean, self.log_std)
        return jnp.sum(normal - self._log_slope(action), axis=-1)

    def entropy(self) -> jax.Array:
        """H(a) = H(u) + E[log da/du], with log da/du = log scale - 2 log cosh(u).

        The logistic density sech(u)^2 / 2, half the second derivative of log cosh, is a mixture of
        centred normals (Andrews and Mallows 1974), of which four are within 1e-5. Integrated twice,
        log cosh(u) + log 2 is the mean of E|u + s z| over their deviations s, and of a normal u it
        is the mean of a folded normal: so the entropy and its slopes are within 1e-4, whatever mean
        and deviation are.
        """
        variance = jnp.exp(2 * self.log_std)
        log_cosh = -jnp.log(2.0)
        for share, deviation in _LOGISTIC:
            std = jnp.sqrt(variance + deviation**2)
            ratio = self.mean / (std * jnp.sqrt(2.0))
            folded = std * jnp.sqrt(2 / jnp.pi) * jnp.exp(-jnp.square(ratio))
            log_cosh += share * (folded + self.mean * jax.lax.erf(ratio))
        normal = 0.5 * (1 + _LOG_2PI) + self.log_std
        return jnp.sum(normal + self._log_scale() - 2 * log_cosh, axis=-1)

    def to_env(self, action: jax.Array) -> jax.Array:
        action = self.low + 0.5 * (self.high - self.low) * (1 + jnp.tanh(action))
        return jnp.clip(action, self.low, self.high)  # rounding can leave the bounds

    def _log_slope(self, u):
        """log da/du."""
        return self._log_scale() + 2 * (jnp.log(2.0) - u - jax.nn.softplus(-2 * u))

    def _log_scale(self):
        return jnp.log(0.5 * (self.high - self.low))


def _normal_log_prob(x, mean, log_std):
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - 0.5 * _LOG_2PI


def _max(logits):
    """[..., 1]"""
    return _fold(jnp.maximum, jnp.max, logits)[..., None]


def _sum(x):
    return _fold(jnp.add, jnp.sum, x)


def _fold(operation, reduction, x):
    """Over the last axis. Few actions are taken one by one: XLA's reductions over a short axis
    take as long on a CPU as the loss's products of matrices."""
    if x.shape[-1] > _FEW:
        return reduction(x, axis=-1)
    return reduce(operation, (x[..., i] for i in range(x.shape[-1])))
