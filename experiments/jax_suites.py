"""Trains A2C on environments of the suites written in JAX, each with its preset.

python experiments/jax_suites.py
python experiments/jax_suites.py --envs breakout snake --num-seeds 2
"""

import sys

from rljax.cli import suite

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
ACHIEVEMENTS = (
    "collect_coal collect_diamond collect_drink collect_iron collect_sapling collect_stone"
    " collect_wood defeat_skeleton defeat_zombie eat_cow eat_plant make_iron_pickaxe"
    " make_iron_sword make_stone_pickaxe make_stone_sword make_wood_pickaxe make_wood_sword"
    " place_furnace place_plant place_stone place_table wake_up"
).split()
TASKS = {
    **{game: {"env": f"pgx/minatar-{game}"} for game in GAMES},
    "snake": {"env": "jumanji/Snake-v1"},
    "craftax-classic": {
        "env": "craftax/Craftax-Classic-Symbolic-v1",
        "log_info": ("score", *(f"Achievements/{name}" for name in ACHIEVEMENTS)),
        "eval_mode": "sampled",  # greedy, it repeats itself
    },
    "ant": {"env": "brax/ant"},
}

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, TASKS, num_seeds=5, run_dir="runs/jax_suites"))
