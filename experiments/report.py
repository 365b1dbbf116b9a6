"""Writes a page about runs and sweeps, one HTML file to send or to keep.

python experiments/report.py RUN_DIR
python experiments/report.py RUN_DIR RUN_DIR --output comparison.html
"""

import sys

from rljax.cli import report

if __name__ == "__main__":
    sys.exit(report.main(__doc__))
