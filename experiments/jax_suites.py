"""Trains A2C on environments of the suites written in JAX, each with its preset.

python experiments/jax_suites.py
python experiments/jax_suites.py --envs Breakout-sticky Snake --num-seeds 2
"""

import sys

from rljax.cli import suite

GAMES = ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders")
TASKS = {
    **{f"{game}-sticky": {"env": f"pgx/minatar-{game.lower()}"} for game in GAMES},
    "Snake": {"env": "jumanji/Snake-v1"},
    "Craftax-Classic": {"env": "craftax/Craftax-Classic-Symbolic-v1"},
    "ant": {"env": "brax/ant"},
}

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, TASKS, num_seeds=5, run_dir="runs/jax_suites"))
