"""Evaluates a run's policies over fresh full episodes.

python experiments/evaluate.py RUN_DIR --episodes 100
python experiments/evaluate.py RUN_DIR --checkpoint best --sampled
"""

import sys

from rljax.cli import evaluation

if __name__ == "__main__":
    sys.exit(evaluation.main(__doc__))
