"""Trains A2C on MinAtar, each game with its preset.

python experiments/minatar.py
python experiments/minatar.py --envs Breakout-MinAtar --num-seeds 2
"""

from pathlib import Path

import suite

ENVS = ("Breakout-MinAtar", "Asterix-MinAtar", "Freeway-MinAtar", "SpaceInvaders-MinAtar")

if __name__ == "__main__":
    suite.script(suite.Options(ENVS, 5, Path("runs/minatar")), __doc__)
