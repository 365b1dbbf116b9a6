"""Draws the learning curves of runs into one figure, as PNG and SVG.

python experiments/plot.py RUN_DIR [RUN_DIR ...] --output curves
"""

import sys

from rljax.cli import plot

if __name__ == "__main__":
    sys.exit(plot.main(__doc__))
