"""Trains DQN, several seeds at once, and writes a run directory. It is there to be compared with.

python experiments/dqn.py --env CartPole-v1 --num-seeds 8
python experiments/dqn.py --resume RUN_DIR
"""

import sys

from rljax.cli import training

if __name__ == "__main__":
    sys.exit(training.main("dqn", __doc__))
