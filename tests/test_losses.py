"""The loss and its gradient, against finite differences of the loss written out in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from rljax import Config, losses
from rljax.networks.distributions import Categorical, Gaussian, TanhGaussian

BATCH, ACTIONS, LOW, HIGH = 4, 2, -1.0, 3.0

# Each distribution, by its parameters: (log-probabilities, entropies), both [N], in float64.


def categorical(params, actions):
    probs = special.softmax(params["logits"], axis=-1)
    return np.log(probs[np.arange(BATCH), actions]), stats.entropy(probs, axis=-1)


def gaussian(params, actions):
    normal = stats.norm(params["mean"], np.exp(params["log_std"]))
    return normal.logpdf(actions).sum(axis=-1), normal.entropy().sum(axis=-1)


def tanh_gaussian(params, actions):
    z = np.linspace(-9, 9, 2001)
    u = params["mean"][..., None] + np.exp(params["log_std"])[..., None] * z
    stretch = np.trapezoid(stats.norm.pdf(z) * log_slope(u), z).sum(axis=-1)
    log_prob, entropy = gaussian(params, actions)
    return log_prob - log_slope(actions).sum(axis=-1), entropy + stretch


def log_slope(u):
    return np.log(0.5 * (HIGH - LOW) / np.cosh(u) ** 2)


REFERENCES = {Categorical: categorical, Gaussian: gaussian, TanhGaussian: tanh_gaussian}


@pytest.fixture(params=REFERENCES, ids=lambda kind: kind.__name__)
def case(request):
    """(kind of distribution, parameters and values, actions, advantages, targets)."""
    rng = np.random.default_rng(0)
    params = {"values": rng.normal(size=BATCH)}
    if request.param is Categorical:
        params["logits"] = rng.normal(size=(BATCH, ACTIONS))
        actions = rng.integers(ACTIONS, size=BATCH)
    else:
        params["mean"] = rng.normal(size=(BATCH, ACTIONS))
        params["log_std"] = rng.uniform(-1, 0, size=(BATCH, ACTIONS))
        actions = rng.normal(size=(BATCH, ACTIONS))
    return request.param, params, actions, *rng.normal(size=(2, BATCH))


def reference_loss(kind, params, actions, advantages, targets, config):
    log_prob, entropy = REFERENCES[kind](params, actions)
    policy_terms = -log_prob * advantages
    value_terms = 0.5 * (targets - params["values"]) ** 2
    reduce = np.sum if config.loss_reduction == "sum" else np.mean
    return reduce(policy_terms + config.vf_coef * value_terms - config.ent_coef * entropy)


def library_loss(kind, params, actions, advantages, targets, config):
    params = dict(params)
    values = params.pop("values")
    if kind is not Categorical:
        params |= {"low": jnp.full((BATCH, ACTIONS), LOW), "high": jnp.full((BATCH, ACTIONS), HIGH)}
    distribution = kind(**params)
    return losses.actor_critic(distribution, values, actions, advantages, targets, config)


def central_differences(function, params, step=1e-5):
    gradients = {name: np.zeros_like(x) for name, x in params.items()}
    for name, x in params.items():
        for i in np.ndindex(x.shape):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[i] += sign * step
                ends.append(function({**params, name: moved}))
            gradients[name][i] = (ends[0] - ends[1]) / (2 * step)
    return gradients


@partial(jax.jit, static_argnums=0)
def library_gradients(kind, *args):
    """((loss, terms), the gradients for parameters, advantages and targets)."""
    gradient = jax.value_and_grad(library_loss, argnums=(1, 3, 4), has_aux=True)
    return gradient(kind, *args)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("vf_coef", "ent_coef"),
    [(0, 0), (0.7, 0), (0, 0.3), (0.7, 0.3)],
    ids=["policy", "policy and value", "policy and entropy", "all"],
)
def test_the_loss_and_its_gradient_are_those_of_the_formula(case, vf_coef, ent_coef, reduction):
    kind, params, *rest = case
    config = Config(vf_coef=vf_coef, ent_coef=ent_coef, loss_reduction=reduction)

    def of_params(params):
        return reference_loss(kind, params, *rest, config)

    (loss, terms), (gradients, *_) = library_gradients(kind, params, *rest, config)
    np.testing.assert_allclose(loss, of_params(params), rtol=1e-4)
    expected = central_differences(of_params, params)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    # What is recorded adds up to the loss, but for the entropy, which is always a mean.
    number = BATCH if reduction == "sum" else 1
    total = (
        terms["policy_loss"] + vf_coef * terms["value_loss"] - ent_coef * number * terms["entropy"]
    )
    np.testing.assert_allclose(total, loss, rtol=1e-4)


def test_normalised_advantages_have_mean_0_and_deviation_1(case):
    kind, params, actions, advantages, targets = case
    normalised = (advantages - advantages.mean()) / advantages.std()
    expected = reference_loss(kind, params, actions, normalised, targets, Config())
    config = Config(normalize_advantage=True)
    (loss, _), _ = library_gradients(kind, params, actions, advantages, targets, config)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("normalize_advantage", [False, True])
def test_no_gradient_flows_into_advantages_and_targets(case, normalize_advantage):
    config = Config(normalize_advantage=normalize_advantage)
    _, (of_params, *of_constants) = library_gradients(*case, config)
    assert all(np.any(gradient != 0) for gradient in of_params.values())
    for gradient in of_constants:
        np.testing.assert_array_equal(gradient, np.zeros(BATCH))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 3, 5, 7], 1.0),
        ([4, 4, 4, 4], 0.0),
        ([11, 13, 15, 17], 1.0),  # a constant error is not counted
        ([2, 3, 5, 6], 0.9),  # errors -1, 0, 0, 1: variance 0.5, of the targets' 5
        ([-1, -3, -5, -7], -3.0),
    ],
)
def test_explained_variance(values, expected):
    targets = np.array([1.0, 3.0, 5.0, 7.0])
    params = {"values": np.array(values, float), "logits": np.zeros((4, ACTIONS))}
    actions, advantages = np.zeros(4, int), np.zeros(4)
    (_, terms), _ = library_gradients(Categorical, params, actions, advantages, targets, Config())
    np.testing.assert_allclose(terms["explained_variance"], expected, atol=1e-5)


@pytest.mark.parametrize("which", range(3))
def test_a_column_of_values_is_refused(which):
    arrays = [jnp.zeros(4)] * 3
    arrays[which] = jnp.zeros((4, 1))
    values, advantages, targets = arrays
    distribution, actions = Categorical(jnp.zeros((4, 2))), jnp.zeros(4, jnp.int32)
    with pytest.raises(AssertionError):
        losses.actor_critic(distribution, values, actions, advantages, targets, Config())
