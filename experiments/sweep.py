"""Trains many settings with many seeds, and writes one table and what it says.

python experiments/sweep.py --axis learning_rate=log:1e-4:1e-2:16 --axis num_steps=5,16
python experiments/sweep.py --sampling random --num-points 24 --axis learning_rate=log:5e-3:4e-2
python experiments/sweep.py --algorithm a3c --axis num_workers=1,2,4
python experiments/sweep.py --resume RUN_DIR
python experiments/sweep.py --join RUN_DIR --axis num_steps=5,16  # on each of several machines
"""

import sys

from rljax.cli import sweep

if __name__ == "__main__":
    sys.exit(sweep.main(__doc__))
