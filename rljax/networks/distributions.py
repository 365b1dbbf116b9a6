"""Distributions over actions.

Fields and actions are [..., A], a `Categorical`'s actions [...], `log_prob` and `entropy` [...].
`sample` is a deterministic function of `noise`, so that a rollout draws the noise of all its steps
at once. `to_env` converts an action to what the environment takes.
"""

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.envs.spaces import ActionSpace, Box

_LOG_2PI = float(np.log(2 * np.pi))
_FEW = 32
_WEIGHTS = (0.11778512, 0.47339246, 0.35659640, 0.05222601)
_DEVIATIONS = (0.49483530, 0.72813815, 1.07375914, 1.58635354)
"""Of centred normals whose mixture is sech(u)^2 / 2, with least maximal error of its first and
second integrals (found by least squares)."""


def noise(space: ActionSpace, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The noise of `sample` for actions [*shape]: uniform [*shape] for one discrete action, uniform
    [*shape, A] for several, standard normal [*shape, A] for continuous ones."""
    if isinstance(space, Box):
        return jax.random.normal(key, (*shape, space.size))
    return jax.random.uniform(key, (*shape, *space.mask_shape[:-1]))


class Categorical(NamedTuple):
    """Actions 0, ..., A - 1 with probabilities softmax(logits); invalid ones have -inf."""

    logits: jax.Array

    @property
    def probs(self) -> jax.Array:
        """The probabilities [..., A]."""
        return jax.nn.softmax(self.logits)

    def sample(self, noise: jax.Array) -> jax.Array:
        """int32 [...], by inverting the distribution function at uniform noise [...].

        An action of probability 0 is never sampled, in whatever order XLA adds up: of the actions
        with a probability it is the first whose distribution function is above the noise, or the
        last one should rounding leave none.
        """
        shares = jnp.exp(self.logits - _max(self.logits))
        cdf = jnp.cumsum(shares, axis=-1)
        possible = shares > 0
        above = jnp.logical_and(possible, noise[..., None] * cdf[..., -1:] < cdf)
        number = self.logits.shape[-1]
        if number > _FEW:
            last = number - 1 - jnp.argmax(jnp.flip(possible, axis=-1), axis=-1)
            return jnp.where(jnp.any(above, axis=-1), jnp.argmax(above, axis=-1), last)
        action = jnp.zeros(noise.shape, jnp.int32)
        for i in range(number):
            action = jnp.where(possible[..., i], i, action)
        for i in reversed(range(number)):
            action = jnp.where(above[..., i], i, action)
        return action

    def mode(self) -> jax.Array:
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
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
        return action


class MultiCategorical(NamedTuple):
    """Several independent discrete actions: a `Categorical` for each row of the logits [..., A, N].
    Rows shorter than the longest end in -inf."""

    logits: jax.Array

    probs = Categorical.probs
    sample = Categorical.sample
    mode = Categorical.mode
    to_env = Categorical.to_env

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)


class Gaussian(NamedTuple):
    """Independent normal components, clipped to the bounds for the environment. Log-probabilities
    are those before clipping, as in SB3 and baselines."""

    mean: jax.Array
    log_std: jax.Array
    low: jax.Array
    high: jax.Array

    def sample(self, noise: jax.Array) -> jax.Array:
        return self.mean + jnp.exp(self.log_std) * noise

    def mode(self) -> jax.Array:
        return self.mean

    def log_prob(self, action: jax.Array) -> jax.Array:
        return jnp.sum(_normal_log_prob(action, self.mean, self.log_std), axis=-1)

    def entropy(self) -> jax.Array:
        return jnp.sum(0.5 * (1 + _LOG_2PI) + self.log_std, axis=-1)

    def to_env(self, action: jax.Array) -> jax.Array:
        return jnp.clip(action, self.low, self.high)


class TanhGaussian(NamedTuple):
    """tanh of independent normal components, scaled to bounds.

    Actions are stored as the normal u, before squashing, so that the inverse of tanh, which is
    infinite at the bounds, is not needed. With a = centre + scale tanh(u),
    log p(a) = log N(u) - log scale - log(1 - tanh(u)^2)  (arXiv 1801.01290, appendix C),
    where log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) is exact for large |u| too.
    """

    mean: jax.Array
    log_std: jax.Array
    low: jax.Array
    high: jax.Array

    sample = Gaussian.sample
    mode = Gaussian.mode  # squashed, the median

    def log_prob(self, action: jax.Array) -> jax.Array:
        normal = _normal_log_prob(action, self.mean, self.log_std)
        slope = self._log_scale() + 2 * (jnp.log(2.0) - action - jax.nn.softplus(-2 * action))
        return jnp.sum(normal - slope, axis=-1)

    def entropy(self) -> jax.Array:
        """H(a) = H(u) + E[log da/du], with log da/du = log scale - 2 log cosh(u).

        The logistic density sech(u)^2 / 2, half the second derivative of log cosh, is a mixture of
        centred normals (Andrews and Mallows 1974); four approximate it within 1e-5. Integrated
        twice, log cosh(u) + log 2 is the mean of E|u + s z| over their deviations s; for normal u
        that is the mean of a folded normal. The entropy and its gradient are within 1e-4 for every
        mean and deviation.
        """
        variance = jnp.exp(2 * self.log_std)
        log_cosh = -jnp.log(2.0)
        for share, deviation in zip(_WEIGHTS, _DEVIATIONS):
            std = jnp.sqrt(variance + deviation**2)
            ratio = self.mean / (std * jnp.sqrt(2.0))
            folded = std * jnp.sqrt(2 / jnp.pi) * jnp.exp(-jnp.square(ratio))
            log_cosh += share * (folded + self.mean * jax.lax.erf(ratio))
        normal = 0.5 * (1 + _LOG_2PI) + self.log_std
        return jnp.sum(normal + self._log_scale() - 2 * log_cosh, axis=-1)

    def to_env(self, action: jax.Array) -> jax.Array:
        action = self.low + 0.5 * (self.high - self.low) * (1 + jnp.tanh(action))
        return jnp.clip(action, self.low, self.high)  # rounding can leave the bounds

    def _log_scale(self):
        return jnp.log(0.5 * (self.high - self.low))


def _normal_log_prob(x, mean, log_std):
    return -0.5 * jnp.square((x - mean) * jnp.exp(-log_std)) - log_std - 0.5 * _LOG_2PI


def _max(logits):
    """[..., 1]."""
    return _fold(jnp.maximum, jnp.max, logits)[..., None]


def _sum(x):
    return _fold(jnp.add, jnp.sum, x)


def _fold(operation, reduction, x):
    """Reduces the last axis; few actions one by one, as XLA's reductions over a short axis take as
    long on CPU as the matrix products of the loss."""
    if x.shape[-1] > _FEW:
        return reduction(x, axis=-1)
    return reduce(operation, (x[..., i] for i in range(x.shape[-1])))
