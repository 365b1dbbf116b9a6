"""Writes the tables of runs and sweeps to TensorBoard, W&B, trackio or MLflow.

python experiments/export.py RUN_DIR [RUN_DIR ...] --to tensorboard
"""

import sys

from rljax.cli import export

if __name__ == "__main__":
    sys.exit(export.main(__doc__))
