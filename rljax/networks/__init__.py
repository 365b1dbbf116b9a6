"""Networks, in Flax linen.

actor_critic   ActorCritic, and what a config makes of it: `make`, `init`, `describe`
torsos         MLP, CNN, and which torso a config names
blocks         the network on observations as rollouts keep them, in blocks where they are large
layers         Dense, whose outputs acting records and the update reuses; initialisation
distributions  over actions
"""

from rljax.networks.actor_critic import ActorCritic, Raveled, describe, init, make
from rljax.networks.layers import Dense, orthogonal
from rljax.networks.torsos import CNN, MLP

__all__ = [
    "CNN",
    "MLP",
    "ActorCritic",
    "Dense",
    "Raveled",
    "describe",
    "init",
    "make",
    "orthogonal",
]
