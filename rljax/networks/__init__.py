"""Networks, in Flax linen.

actor_critic   ActorCritic, and what a config makes of it: `make`, `init`, `describe`
cores          recurrent: between torsos and heads; what an agent carries from step to step
cells          LSTM and GRU
replay         what acting computed, once more over a rollout
torsos         MLP, CNN, and which torso a config names
blocks         the network on observations as rollouts keep them, in blocks where they are large
layers         Dense, Conv: outputs that acting records and the update reuses; initialisation
convolutions   of images; on a CPU as products of matrices
products       of matrices, with gradients in the form that a CPU is fast at
distributions  over actions
"""

from rljax.networks.actor_critic import ActorCritic, Raveled, describe, init, make
from rljax.networks.cores import Carry
from rljax.networks.cores import initial as initial_carry
from rljax.networks.layers import Dense, orthogonal
from rljax.networks.torsos import CNN, MLP

__all__ = [
    "CNN",
    "MLP",
    "ActorCritic",
    "Carry",
    "Dense",
    "Raveled",
    "describe",
    "init",
    "initial_carry",
    "make",
    "orthogonal",
]
