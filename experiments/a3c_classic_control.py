"""Trains A3C on classic control problems, each with its preset and four workers.

python experiments/a3c_classic_control.py
"""

from pathlib import Path

import a3c
import suite

ENVS = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1")
DEFAULT = suite.Options(envs=ENVS, num_seeds=5, run_dir=Path("runs/a3c_classic_control"))

if __name__ == "__main__":
    suite.script(DEFAULT, __doc__, a3c)
