"""Environments, in JAX or stepped by Python, behind one interface.

registry    `make`: an environment from an id, a path or an object
interface   EnvSpec and Step: what both kinds of environment have in common
jax_envs    Env: an environment in JAX with gymnax's interface, as pure functions
host_envs   HostEnv: a gymnasium environment; HostVectorEnv: several of them, open
guarded     one open gymnasium environment, its answers checked and its errors reported
vectorized  several of those: in this process, or each in its own
spaces      action and observation spaces, and masks of valid actions
encoding    observations as arrays; actions as the environment takes them
render      CartPole as images
"""

from rljax.envs.host_envs import HostEnv
from rljax.envs.jax_envs import Env
from rljax.envs.registry import has_vectors, make

__all__ = ["Env", "HostEnv", "has_vectors", "make"]
