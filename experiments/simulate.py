"""Simulates A3C in one program: any number of workers and delays, with any settings and seeds.

python experiments/simulate.py --num-workers 16 --transit exponential:0.5
python experiments/simulate.py --axis staleness=constant:0,constant:8,constant:32 --axis \
learning_rate=log:5e-4:8e-3:5
python experiments/simulate.py --stale data --staleness constant:16 --axis correction=none,vtrace
python experiments/simulate.py --work measured:RUN_DIR --transit measured:RUN_DIR \
--service measured:RUN_DIR --pause measured:RUN_DIR
python experiments/simulate.py --resume RUN_DIR
"""

import sys

from rljax.cli import sweep

if __name__ == "__main__":
    sys.exit(sweep.main(__doc__, only="a3c_simulated"))
