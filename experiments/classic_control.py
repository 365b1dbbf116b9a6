"""Trains A2C on the classic control problems, each with its preset.

python experiments/classic_control.py
python experiments/classic_control.py --envs CartPole-v1 Acrobot-v1 --num-seeds 5
"""

import sys

from rljax.cli import suite

ENVS = (
    "CartPole-v1",
    "Acrobot-v1",
    "Pendulum-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Catch-bsuite",
)

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, ENVS, num_seeds=10, run_dir="runs/classic_control"))
