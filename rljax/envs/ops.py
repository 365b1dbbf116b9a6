"""What wrappers compute with, written once for both kinds of environments: traced by JAX, or in
Python, on an open environment that is stepped as they run."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.utils import pytrees


class Ops(NamedTuple):
    """Operations of one kind of environment."""

    xp: ModuleType  # jax.numpy or numpy
    where: Callable[[Any, Any, Any], Any]  # (condition, x, otherwise), two pytrees alike
    split: Callable[[Any, int], Sequence[Any]]  # (key, number) -> as many keys
    uniform: Callable[[Any], Any]  # key -> a number in [0, 1)
    repeat: Callable[[Callable, Callable, Sequence[Any], Any], Any]
    """(goes_on, body, keys, now): `now = body(key, now)` for each key while `goes_on(now)`."""


def _repeat_in_jax(goes_on, body, keys, now):
    def one(now, key):  # of a known number: a GPU waits for the host in other loops
        return pytrees.where(goes_on(now), body(key, now), now), None

    return jax.lax.scan(one, now, keys)[0]


def _repeat_in_python(goes_on, body, keys, now):
    for key in keys:
        if not goes_on(now):
            break
        now = body(key, now)
    return now


IN_JAX = Ops(jnp, pytrees.where, jax.random.split, jax.random.uniform, _repeat_in_jax)
IN_PYTHON = Ops(
    np,
    lambda condition, x, otherwise: x if condition else otherwise,
    lambda generator, number: [generator] * number,
    np.random.Generator.random,
    _repeat_in_python,
)
"""Its keys are one `numpy.random.Generator`, which goes on."""
