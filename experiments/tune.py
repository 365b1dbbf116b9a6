"""Finds good settings within a budget of environment steps, and says how good they are.

python experiments/tune.py --env Acrobot-v1 --axis learning_rate=log:1e-3:1e-1 --budget 50M
python experiments/tune.py --sampler tpe --axis learning_rate=log:1e-4:1e-1 --axis num_steps=5,16
python experiments/tune.py --env Acrobot-v1 CartPole-v1 --axis gae_lambda=0.8,0.9,1 --budget 20M
python experiments/tune.py --resume RUN_DIR
"""

import sys

from rljax.cli import tune

if __name__ == "__main__":
    sys.exit(tune.main(__doc__))
