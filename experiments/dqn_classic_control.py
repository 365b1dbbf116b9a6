"""Trains DQN on classic control problems and Catch, each with its preset.

python experiments/dqn_classic_control.py
"""

import sys

from rljax.cli import suite

ENVS = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Catch-bsuite")

if __name__ == "__main__":
    sys.exit(suite.main("dqn", __doc__, ENVS, num_seeds=10, run_dir="runs/dqn_classic_control"))
