"""Trains A2C on environments of gymnasium's, each with its preset; needs the extra box2d.

python experiments/gymnasium_envs.py
python experiments/gymnasium_envs.py --envs gymnasium/LunarLander-v3
"""

from pathlib import Path

import suite

ENVS = (
    "gymnasium/CartPole-v1",
    "gymnasium/Acrobot-v1",
    "gymnasium/Pendulum-v1",
    "gymnasium/LunarLander-v3",
    "gymnasium/LunarLanderContinuous-v3",
    "gymnasium/BipedalWalker-v3",
)

if __name__ == "__main__":
    suite.script(suite.Options(ENVS, 5, Path("runs/gymnasium_envs")), __doc__)
