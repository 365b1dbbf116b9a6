"""Trains A2C on the classic control problems, each with its preset.

python experiments/classic_control.py
python experiments/classic_control.py --envs CartPole-v1 Acrobot-v1 --num-seeds 5
"""

from pathlib import Path

import suite

ENVS = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Catch-bsuite",
)

if __name__ == "__main__":
    suite.script(suite.Options(ENVS, 10, Path("runs/classic_control")), __doc__)
