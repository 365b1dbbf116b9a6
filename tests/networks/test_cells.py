"""The project's LSTM and GRU against flax's: a rollout of one as steps of the other."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.networks import cells

STEPS, ENVS, INPUTS, SIZE = 7, 3, 5, 4
FLAX = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell}
GATES = {"lstm": "ifgo", "gru": "rzn"}


def of_flax(kind, params):
    """The parameters of flax's cell, which has a layer for each gate. Its GRU has a recurrent bias
    in the last gate alone."""
    inputs, recurrent = params["inputs"], params["recurrent"]
    given = {}
    for index, gate in enumerate(GATES[kind]):
        own = slice(index * SIZE, (index + 1) * SIZE)
        given[f"i{gate}"] = {"kernel": inputs["kernel"][:, own]}
        given[f"h{gate}"] = {"kernel": recurrent["kernel"][:, own]}
        bias = {"bias": inputs["bias"][own]}
        if kind == "lstm":
            given[f"h{gate}"] |= bias
        else:
            given[f"i{gate}"] |= bias
    if kind == "gru":
        given["hn"]["bias"] = recurrent["bias"][2 * SIZE :]
    return given


@pytest.fixture(scope="module", params=FLAX)
def example(request):
    """(kind, the cell, its variables, inputs [T, B, F], first carry, done [T, B])."""
    cell = cells.Cell(request.param, SIZE, forget_bias=1.0)
    rng = np.random.default_rng(0)
    first = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32),
        cell.initialize_carry(jax.random.key(0), (ENVS, 1)),
    )
    inputs = rng.normal(size=(STEPS, ENVS, INPUTS)).astype(np.float32)
    variables = cell.init(jax.random.key(1), first, inputs[0])
    done = rng.random((STEPS, ENVS)) < 0.3
    assert done[:-1].any()
    return request.param, cell, variables, inputs, first, done


def stepped(kind, params, inputs, first, done):
    """(carries after each step, outputs) of flax's cell, step by step; what it carries as ours."""
    cell = FLAX[kind](SIZE)
    carry, after, outputs = first if kind == "lstm" else first[0], [], []
    for x, ended in zip(inputs, done):
        carry, out = cell.apply({"params": of_flax(kind, params)}, carry, x)
        after.append(carry if kind == "lstm" else (carry,))
        outputs.append(out)
        carry = jax.tree.map(lambda x, ended=ended: jnp.where(ended[:, None], 0.0, x), carry)
    return jax.tree.map(lambda *x: jnp.stack(x), *after), jnp.stack(outputs)


def test_a_rollout_and_its_gradient_are_those_of_flax(example):
    kind, cell, variables, inputs, first, done = example
    rng = np.random.default_rng(2)
    shapes = jax.eval_shape(partial(stepped, kind), variables["params"], inputs, first, done)
    weights = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)

    def loss(unrolled):
        def of(params, inputs, first):
            out = unrolled(params, inputs, first)
            parts = jax.tree.map(lambda x, w: jnp.sum(x * w), out, weights)
            return sum(jax.tree.leaves(parts)), out

        return jax.jit(jax.value_and_grad(of, (0, 1, 2), has_aux=True))

    def own(params, inputs, first):
        return cell.apply({"params": params}, first, inputs, done, method="unroll")

    args = variables["params"], inputs, first
    (_, expected), right = loss(lambda p, x, first: stepped(kind, p, x, first, done))(*args)
    (_, found), gradients = loss(own)(*args)
    check = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(check, found, expected)
    if kind == "gru":  # flax's has none in the other gates
        bias = np.array(right[0]["recurrent"]["bias"])
        bias[: 2 * SIZE] = right[0]["inputs"]["bias"][: 2 * SIZE]
        right[0]["recurrent"]["bias"] = bias
    jax.tree.map(check, gradients, right)


def test_what_acting_recorded_is_what_is_reused(example):
    """A rollout takes what was recorded for what it would compute, and has the same gradient."""
    _, cell, variables, inputs, first, done = example
    carry, recorded = first, []
    for x, ended in zip(inputs, done):
        (carry, _), record = cell.apply(variables, carry, x, mutable=["recorded"])
        recorded.append(record)
        carry = cells.reset(ended, jax.tree.map(jnp.zeros_like, carry), carry)
    recorded = jax.tree.map(lambda *x: jnp.concatenate(x), *recorded)

    def loss(params, recorded):
        out = cell.apply({"params": params, **recorded}, first, inputs, done, method="unroll")
        return jnp.sum(jnp.square(out[1])), out

    gradient = jax.grad(loss, has_aux=True)
    computed, reused = gradient(variables["params"], {}), gradient(variables["params"], recorded)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), computed, reused)
    other = jax.tree.map(lambda x: x + 1.0, recorded)
    _, (_, outputs) = gradient(variables["params"], other)
    np.testing.assert_allclose(outputs, reused[1][1] + 1.0, rtol=1e-6)


@pytest.mark.parametrize("kind", FLAX)
def test_the_gate_that_keeps_begins_with_the_forget_bias(kind):
    cell = cells.Cell(kind, SIZE, forget_bias=3.0)
    first = cell.initialize_carry(jax.random.key(0), (1, 1))
    bias = cell.init(jax.random.key(0), first, np.zeros((1, INPUTS)))["params"]["inputs"]["bias"]
    expected = np.zeros(len(bias))
    expected[SIZE : 2 * SIZE] = 3.0
    np.testing.assert_array_equal(bias, expected)
