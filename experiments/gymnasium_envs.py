"""Trains A2C on gymnasium environments, each with its preset; needs the extra box2d.

python experiments/gymnasium_envs.py
python experiments/gymnasium_envs.py --envs gymnasium/LunarLander-v3
"""

import sys

from rljax.cli import suite

ENVS = (
    "gymnasium/CartPole-v1",
    "gymnasium/Acrobot-v1",
    "gymnasium/Pendulum-v1",
    "gymnasium/LunarLander-v3",
    "gymnasium/LunarLanderContinuous-v3",
    "gymnasium/BipedalWalker-v3",
)

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, ENVS, num_seeds=5, run_dir="runs/gymnasium_envs"))
