"""Arrays without elements in the state of an environment in JAX, such as pgx's Asterix has.

They are left out between steps: `jax.lax.map` in batches cannot take them, and a program gives them
back spread over devices in another way than it took them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from rljax.envs.interface import MDP


def left_out(mdp: MDP, example: Any) -> MDP:
    """The MDP with states that are tuples of the other arrays, if some have no elements.

    Args:
        example: one of its states, of arrays or their shapes.
    """
    leaves, structure = jax.tree.flatten(example)
    if all(leaf.size for leaf in leaves):
        return mdp

    def less(state):
        return tuple(x for x in jax.tree.leaves(state) if x.size)

    def whole(state):
        rest = iter(state)
        return structure.unflatten(
            next(rest) if x.size else jnp.zeros(x.shape, x.dtype) for x in leaves
        )

    def reset(key, index=0):
        state, obs = mdp.reset(key, index)
        return less(state), obs

    def step(key, state, action):
        after, answer = mdp.step(key, whole(state), action)
        return less(after), answer

    return mdp._replace(reset=reset, step=step, mask=lambda state: mdp.mask(whole(state)))
