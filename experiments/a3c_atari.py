"""Trains A3C on Atari's Pong with two workers; needs the extra atari.

python experiments/a3c_atari.py
"""

import sys

from rljax.cli import suite

PONG = {"env": "ALE/Pong-v5", "eval_episodes": 20, "eval_mode": "sampled"}
# Several environments in a worker: one makes gradients of five steps, which cost as much to send.
WORKERS = {"num_workers": 2, "envs_per_worker": 8}
TASKS = {"pong": {**PONG, "total_timesteps": 1_000_000, **WORKERS}}

if __name__ == "__main__":
    sys.exit(suite.main("a3c", __doc__, TASKS, num_seeds=1, run_dir="runs/a3c_atari"))
