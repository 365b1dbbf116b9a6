"""The policies' distributions, against SciPy and sums and integrals in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rljax.envs.spaces import Box, Discrete, MultiDiscrete
from rljax.networks.distributions import (
    Categorical,
    Gaussian,
    MultiCategorical,
    TanhGaussian,
    noise,
)

INF = float("inf")
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


def float32(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


@partial(jax.jit, static_argnums=1)
def call(distribution, method, *args):
    """A method of a distribution, compiled whole: faster than operation by operation."""
    return getattr(distribution, method)(*args)


# Categorical


def test_categorical_log_prob_and_entropy():
    rng = np.random.default_rng(0)
    logits, actions = 3 * rng.normal(size=(6, 4)), rng.integers(4, size=6)
    probs = special.softmax(logits, axis=-1)
    categorical = Categorical(*float32(logits))
    log_prob, entropy = call(categorical, "log_prob", actions), call(categorical, "entropy")
    np.testing.assert_allclose(log_prob, np.log(probs[np.arange(6), actions]), rtol=1e-5)
    np.testing.assert_allclose(entropy, stats.entropy(probs, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(call(categorical, "mode"), probs.argmax(axis=-1))


def test_actions_are_drawn_as_often_as_they_are_probable():
    number = 100_000
    logits = np.array([-INF, 0.5, -INF, 1.5, -2.0, -INF])
    uniform = noise(Discrete(6), jax.random.key(0), (number,))
    actions = call(Categorical(np.float32(np.tile(logits, (number, 1)))), "sample", uniform)
    probs = special.softmax(logits)
    found = np.bincount(actions, minlength=6) / number
    standard_errors = np.sqrt(probs * (1 - probs) / number)
    assert actions.dtype == jnp.int32
    assert np.all(np.abs(found - probs) <= 4 * standard_errors)  # an impossible action: never


@pytest.mark.parametrize("uniform", [0.0, 0.5, BELOW_ONE])
@pytest.mark.parametrize(
    ("logits", "possible"),
    [
        ([-INF, 0.0, 1.0, 0.3], {1, 2, 3}),
        ([0.0, -INF, -INF, 0.3], {0, 3}),
        ([0.1, 0.2, 0.7, -INF], {0, 1, 2}),
        ([-INF, -INF, 5.0, -INF], {2}),
    ],
)
def test_an_impossible_action_is_not_drawn_at_the_ends_of_the_noise(logits, possible, uniform):
    action = call(Categorical(*float32(logits)), "sample", np.float32(uniform))
    assert int(action) in possible


def test_an_impossible_action_is_not_drawn_at_the_borders_between_actions():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(500, 18)).astype(np.float32)
    possible = rng.random((500, 18)) < 0.6
    possible[:, 5] = True
    probs = np.where(possible, np.exp(logits), 0)
    border = (np.cumsum(probs, axis=-1) / probs.sum(axis=-1, keepdims=True)).astype(np.float32)
    around = [np.nextafter(border, np.float32(0)), border, np.nextafter(border, np.float32(1))]
    uniform = np.minimum(np.stack(around), BELOW_ONE)  # [3, 500, 18]
    masked = np.where(possible, logits, -INF)[:, None, :]
    everywhere = np.broadcast_to(masked, (3, 500, 18, 18))
    actions = call(Categorical(everywhere), "sample", uniform)
    assert possible[np.arange(500)[None, :, None], actions].all()


def test_an_impossible_action_carries_no_entropy_and_no_gradient():
    logits = np.array([0.3, -INF, 1.2, -0.4])
    kept = logits[[0, 2, 3]]

    entropy = jax.jit(jax.value_and_grad(lambda logits: Categorical(logits).entropy()))
    found, gradient = entropy(*float32(logits))
    expected, expected_gradient = entropy(*float32(kept))
    np.testing.assert_allclose(found, stats.entropy(special.softmax(kept)), rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert gradient[1] == 0
    np.testing.assert_allclose(gradient[np.array([0, 2, 3])], expected_gradient, rtol=1e-5)


def test_of_many_actions_an_impossible_one_is_not_drawn():
    """Where XLA adds up in another order, rounding opens empty intervals."""
    rng = np.random.default_rng(3)
    logits = 3 * rng.normal(size=(200, 700)).astype(np.float32)
    possible = rng.random((200, 700)) < 0.1
    possible[:, 3] = True
    masked = np.broadcast_to(np.where(possible, logits, -INF), (50, 200, 700))
    uniform = np.append(rng.random((49, 200)), np.full((1, 200), BELOW_ONE), axis=0)
    actions = call(Categorical(masked), "sample", np.float32(uniform))
    assert possible[np.arange(200)[None], actions].all()
    assert len(np.unique(actions)) > 300


# MultiCategorical


def test_several_categoricals_are_independent():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(6, 3, 4))
    logits[:, 1, 2:] = -INF  # a shorter row
    actions = np.stack([rng.integers(n, size=6) for n in (4, 2, 4)], axis=-1)
    probs = special.softmax(logits, axis=-1)
    several = MultiCategorical(*float32(logits))
    rows, columns = np.indices(actions.shape)
    log_prob = np.log(probs[rows, columns, actions]).sum(axis=-1)
    np.testing.assert_allclose(call(several, "log_prob", actions), log_prob, rtol=1e-5)
    entropy = stats.entropy(probs, axis=-1).sum(axis=-1)
    np.testing.assert_allclose(call(several, "entropy"), entropy, rtol=1e-5)
    np.testing.assert_array_equal(call(several, "mode"), probs.argmax(axis=-1))


def test_several_actions_are_drawn_as_often_as_they_are_probable():
    number, space = 50_000, MultiDiscrete((2,), (2, 3))
    logits = np.array([[0.5, -0.5, -INF], [1.0, 0.0, -1.0]])
    uniform = noise(space, jax.random.key(5), (number,))
    assert uniform.shape == (number, 2)
    several = MultiCategorical(np.float32(np.broadcast_to(logits, (number, 2, 3))))
    actions = np.asarray(call(several, "sample", uniform))
    joint = np.einsum("i,j->ij", *special.softmax(logits, axis=-1))
    found = np.zeros((3, 3))
    np.add.at(found, tuple(actions.T), 1 / number)
    assert np.all(np.abs(found - joint) <= 4 * np.sqrt(joint * (1 - joint) / number))


# Gaussian


@pytest.fixture
def moments():
    """mean, log_std: [5, 3]; one action each."""
    rng = np.random.default_rng(2)
    mean, log_std = rng.normal(size=(5, 3)), rng.uniform(-1.5, 0.5, size=(5, 3))
    return mean, log_std, mean + np.exp(log_std) * rng.normal(size=(5, 3))


def test_gaussian_log_prob_and_entropy(moments):
    mean, log_std, action = moments
    reference = stats.norm(mean, np.exp(log_std))
    bounds = np.full((2, 5, 3), [[[-0.1]], [[0.1]]])
    gaussian = Gaussian(*float32(mean, log_std, *bounds))
    log_prob = call(gaussian, "log_prob", *float32(action))  # bounds play no part in it
    np.testing.assert_allclose(log_prob, reference.logpdf(action).sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(
        call(gaussian, "entropy"), reference.entropy().sum(axis=-1), rtol=1e-5
    )


@pytest.mark.parametrize("kind", [Gaussian, TanhGaussian])
def test_samples_have_the_mean_and_standard_deviation_asked_for(kind):
    number = 100_000
    mean, std = np.array([-1.0, 2.0]), np.array([0.5, 3.0])
    rows = np.broadcast_to([mean, np.log(std), [-1, -1], [1, 1]], (number, 4, 2))
    normal = noise(Box((2,), (-1, -1), (1, 1)), jax.random.key(1), (number,))
    sample = np.asarray(call(kind(*float32(*np.moveaxis(rows, 1, 0))), "sample", normal), float)
    assert np.all(np.abs(sample.mean(axis=0) - mean) < 4 * std / np.sqrt(number))
    assert np.all(np.abs(sample.std(axis=0) - std) < 4 * std / np.sqrt(2 * number))


def test_gaussian_actions_are_clipped_to_the_bounds_of_each_component():
    gaussian = Gaussian(*float32([[0, 0]], [[0, 0]], [[-1, -2]], [[0.5, 3]]))
    for action, clipped in (([[-5, 5]], [[-1, 3]]), ([[0.25, -1.5]], [[0.25, -1.5]])):
        found = call(gaussian, "to_env", *float32(action))
        np.testing.assert_array_equal(found, clipped)


# TanhGaussian

LOW, HIGH = -1.0, 3.0


def tanh_gaussian(mean, log_std, low=LOW, high=HIGH):
    mean, log_std = float32(mean, log_std)
    return TanhGaussian(mean, log_std, jnp.full_like(mean, low), jnp.full_like(mean, high))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.4, 0.7)])
def test_the_squashed_density_integrates_to_1(mean, std):
    cells = 2000
    actions = LOW + (HIGH - LOW) * (np.arange(cells) + 0.5) / cells
    u = np.arctanh(2 * (actions - LOW) / (HIGH - LOW) - 1)[:, None]
    squashed = tanh_gaussian(np.full_like(u, mean), np.full_like(u, np.log(std)))
    np.testing.assert_allclose(call(squashed, "to_env", *float32(u))[:, 0], actions, atol=1e-5)
    density = np.exp(np.asarray(call(squashed, "log_prob", *float32(u)), float))
    np.testing.assert_allclose(density.sum() * (HIGH - LOW) / cells, 1, atol=1e-4)


def test_squashed_log_prob_is_the_change_of_variables(moments):
    mean, log_std, u = moments
    slope = 0.5 * (HIGH - LOW) * (1 - np.tanh(u) ** 2)
    expected = np.sum(stats.norm.logpdf(u, mean, np.exp(log_std)) - np.log(slope), axis=-1)
    found = call(tanh_gaussian(mean, log_std), "log_prob", *float32(u))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("u", [50.0, -50.0])
def test_squashed_log_prob_is_exact_where_tanh_is_flat(u):
    @partial(jax.value_and_grad, argnums=(0, 1, 2))
    def log_prob(mean, log_std, u):
        return tanh_gaussian(mean[None], log_std[None]).log_prob(u[None])

    found, gradients = jax.jit(log_prob)(*float32(0, 3, u))
    std = np.exp(3.0)
    log_slope = np.log(0.5 * (HIGH - LOW)) + 2 * (np.log(2) - abs(u))  # to 1 part in e^100
    np.testing.assert_allclose(found, stats.norm.logpdf(u, 0, std) - log_slope, rtol=1e-5)
    expected = [u / std**2, u**2 / std**2 - 1, -u / std**2 + 2 * np.sign(u)]
    np.testing.assert_allclose(gradients, expected, rtol=1e-5)


def squashed_entropy(means, log_std):
    """[...] of one component each, by its integral."""
    z, std = np.linspace(-9, 9, 40_001), np.exp(np.asarray(log_std))[..., None]
    u = np.abs(means[..., None] + std * z)
    log_cosh = u + np.log1p(np.exp(-2 * u)) - np.log(2)
    density_of_u = stats.norm.pdf(z)
    log_density = np.log(density_of_u / std) - np.log(0.5 * (HIGH - LOW)) + 2 * log_cosh
    return -np.trapezoid(density_of_u * log_density, z)


@pytest.mark.parametrize("log_std", [-4.0, -1.0, 0.0, 0.5, 2.0, 4.0])
def test_squashed_entropy_and_its_slopes_are_those_of_the_integral(log_std):
    means = np.array([0.0, -0.7, 1.0, 3.0, -20.0])

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.value_and_grad, argnums=(0, 1))
    def entropy(mean, log_std):
        return tanh_gaussian(mean[None], log_std[None]).entropy()

    found, (of_mean, of_log_std) = entropy(*float32(means, log_std))
    np.testing.assert_allclose(found, squashed_entropy(means, log_std), rtol=1e-5, atol=1e-4)
    step = 1e-4
    above, below = (squashed_entropy(means + d, log_std) for d in (step, -step))
    np.testing.assert_allclose(of_mean, (above - below) / (2 * step), atol=2e-4)
    above, below = (squashed_entropy(means, log_std + d) for d in (step, -step))
    np.testing.assert_allclose(of_log_std, (above - below) / (2 * step), rtol=1e-3, atol=1e-3)


def test_squashed_entropy_is_summed_over_components(moments):
    mean, log_std, _ = moments
    found = call(tanh_gaussian(mean, log_std), "entropy")
    expected = squashed_entropy(mean, log_std).sum(axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_squashed_actions_stay_in_bounds():
    rng = np.random.default_rng(3)
    low = rng.uniform(-3, 0, size=(200, 4)).astype(np.float32)
    high = rng.uniform(0.1, 5, size=(200, 4)).astype(np.float32)
    zeros = jnp.zeros((200, 4))
    squashed = TanhGaussian(zeros, zeros, *float32(low, high))
    for u in (-50.0, -9.0, 0.3, 9.0, 50.0):
        action = np.asarray(call(squashed, "to_env", zeros + u))
        assert np.all((low <= action) & (action <= high)), u
        exact = low + (high.astype(float) - low) * (1 + np.tanh(u)) / 2
        np.testing.assert_allclose(action, exact, atol=1e-6)


# Noise


def test_noise_is_uniform_for_discrete_and_normal_for_continuous_actions():
    uniform = noise(Discrete(3), jax.random.key(2), (2000, 5))
    assert uniform.shape == (2000, 5)
    assert stats.kstest(np.ravel(uniform), "uniform").pvalue > 0.01
    normal = noise(Box((2, 3), (-1,) * 6, (1,) * 6), jax.random.key(3), (200, 5))
    assert normal.shape == (200, 5, 6)
    assert stats.kstest(np.ravel(normal), "norm").pvalue > 0.01
