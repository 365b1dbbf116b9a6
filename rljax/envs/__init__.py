"""Environments, in JAX or stepped by Python, behind one interface.

registry    `make`: an environment from an id, a path or an object
catalogue   what ids and paths name; `available`: the ids there are
suites      a module for each suite of environments in JAX that is an extra
interface   EnvSpec, Step, MDP: what both kinds of environment have in common
jax_envs    an environment in JAX with gymnax's interface as an MDP, pure functions of one episode
parameters  those of an environment in JAX: overridden, of each environment, drawn at each reset
autoreset   Env: an MDP whose episodes follow one another; resets cached or not
host_envs   HostEnv: a gymnasium environment; HostVectorEnv: several of them, open
by_index    arguments and options of gymnasium environments that differ
infos       numbers of the info that are logged
wrappers    environments that differ in what is observed, rewarded or done, by name
wrapping    environments in those, in a user's own, and in gymnasium's
ops         what wrappers compute with, in JAX and in Python
frames      the last observations as one
tmaze       a T-maze, in gymnax's form: a hint to remember
guarded     one open gymnasium environment, its answers checked and its errors reported
vectorized  several of those: in this process, or spread over others
atari       the Arcade Learning Environment, with its preprocessing
spaces      action and observation spaces, and masks of valid actions
encoding    observations as arrays; actions as the environment takes them
render      CartPole as images
"""

from rljax.envs.autoreset import Env
from rljax.envs.catalogue import available, factorizes, has_vectors
from rljax.envs.host_envs import HostEnv
from rljax.envs.interface import MDP
from rljax.envs.registry import make

__all__ = ["MDP", "Env", "HostEnv", "available", "factorizes", "has_vectors", "make"]
