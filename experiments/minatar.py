"""Trains A2C on MinAtar, each game with its preset.

python experiments/minatar.py
python experiments/minatar.py --envs Breakout-MinAtar --num-seeds 2
"""

import sys

from rljax.cli import suite

ENVS = ("Breakout-MinAtar", "Asterix-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar")

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, ENVS, num_seeds=5, run_dir="runs/minatar"))
