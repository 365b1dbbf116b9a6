"""Trains A2C on tasks that need a memory, with a recurrent core and without.

python experiments/memory.py
python experiments/memory.py --envs CartPoleNoVel-v1 TMaze-20 --num-seeds 2
"""

import sys

from rljax.cli import suite

TASKS = {
    **{
        name: {"preset": name}
        for name in ("CartPoleNoVel-v1", "PendulumNoVel-v1", "MountainCarContinuousNoVel-v0")
    },
    **{
        f"MemoryChain-{length}": {
            "env": "MemoryChain-bsuite",
            "env_params": {"memory_length": length},
        }
        for length in (10, 40)
    },
    **{
        f"TMaze-{corridor}": {"env": "TMaze", "env_params": {"corridor": corridor}}
        for corridor in (20, 100)
    },
}
VARIANTS = {"recurrent": {}, "feed-forward": {"core": "none", "core_inputs": ()}}

if __name__ == "__main__":
    sys.exit(suite.main("a2c", __doc__, TASKS, 5, "runs/memory", variants=VARIANTS))
