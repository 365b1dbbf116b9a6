"""Numbers found in an environment's info."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import envs
from rljax.envs import infos

INFO = {
    "is_success": np.bool_(True),
    "score": 3,
    "episode": {"r": np.float64(2.5), "more": {"l": jnp.int8(7)}},
    "a": {"b": 1.0, "b/c": 2.0},
    "a/b": {"c": 3.0, "d": np.array(4)},
    "a/b/c": 5.0,
    1: "text",
}


@pytest.mark.parametrize("xp", [np, jnp])
def test_numbers_by_name(xp):
    """A key as it stands comes first; else the shortest beginning that leads to a number."""
    names = ("is_success", "score", "episode/r", "episode/more/l", "a/b/c", "a/b/d")
    found = infos.numbers(INFO, names, xp)
    assert (found.dtype, found.tolist()) == (np.float32, [1, 3, 2.5, 7, 5, 4])
    del (shorter := dict(INFO))["a/b/c"]
    assert infos.numbers(shorter, ("a/b/c",), xp).tolist() == [2.0]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (np.ones(2), r"of shape \[2\]"),
        (np.ones((1, 1)), r"of shape \[1, 1\]"),
        ("text", "of <U4"),
        (None, "of object"),
        (1j, "of complex128"),
        ({}, "of object"),
    ],
)
def test_what_is_no_number_is_refused(value, what):
    text = f"log_info: the info's 'x' must be a scalar number, not {what}"
    with pytest.raises(TypeError, match=text):
        infos.numbers({"x": value}, ("x",))


def test_a_name_that_is_missing_is_answered_with_those_there():
    with pytest.raises(ValueError, match=r"the info of a step has no 'x', but 'y', 'z/w'$"):
        infos.numbers({"y": 1, "z": {"w": 2}}, ("x",))
    with pytest.raises(ValueError, match="has no 'x/y', but nothing"):
        infos.numbers({}, ("x/y",))


def test_an_environment_in_jax_is_refused_when_it_is_made():
    with pytest.raises(ValueError, match="'probes:Telling': log_info: the info of a step has no"):
        envs.make("probes:Telling", log_info=("missing",))
    with pytest.raises(TypeError, match="log_info: the info's 'episode' must be a scalar number"):
        envs.make("probes:Telling", log_info=("episode",))


@pytest.mark.slow
def test_a_suites_numbers_are_found():
    pytest.importorskip("craftax")
    names = ("Achievements/collect_wood", "Achievements/wake_up")
    env = envs.make("craftax/Craftax-Classic-Symbolic-v1", log_info=names)

    def step(key):
        state, _ = env.mdp.reset(key)
        return env.mdp.step(key, state, jnp.int32(0))[1]

    assert jax.eval_shape(step, jax.random.key(0)).info.shape == (2,)
