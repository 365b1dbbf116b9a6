"""Trains A2C, several seeds at once if the environment is in JAX, and writes a run directory.

python experiments/a2c.py --env CartPole-v1 --num-seeds 8
python experiments/a2c.py --env gymnasium/LunarLander-v3 --num-envs 16 --vectorization sync
python experiments/a2c.py --resume RUN_DIR
"""

import sys

from rljax.cli import training

if __name__ == "__main__":
    sys.exit(training.main("a2c", __doc__))
