"""Trains A2C on Atari's Pong, with the preset of all its games; needs the extra atari.

python experiments/atari.py
python experiments/atari.py --envs pong --num-seeds 2
"""

import sys

from rljax.cli import suite

PONG = {"env": "ALE/Pong-v5", "eval_episodes": 20, "eval_mode": "sampled"}
TASKS = {"pong": {**PONG, "total_timesteps": 2_000_000}}

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, TASKS, num_seeds=1, run_dir="runs/atari"))
