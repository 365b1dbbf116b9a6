"""Trains A3C with worker processes, one seed after another, and writes a run directory.

python experiments/a3c.py --env CartPole-v1 --num-workers 4
python experiments/a3c.py --env gymnasium/CartPole-v1 --num-workers 2
python experiments/a3c.py --resume RUN_DIR
"""

import sys

from rljax.cli import training

if __name__ == "__main__":
    sys.exit(training.main("a3c", __doc__))
