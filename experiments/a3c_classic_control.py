"""Trains A3C on classic control problems, each with its preset and four workers.

python experiments/a3c_classic_control.py
"""

import sys

from rljax.cli import suite

ENVS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")

if __name__ == "__main__":
    sys.exit(suite.main("a3c", __doc__, ENVS, num_seeds=5, run_dir="runs/a3c_classic_control"))
