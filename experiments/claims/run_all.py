"""Tests all claims, one after another, and writes the page and the figures about them.

python experiments/claims/run_all.py
python experiments/claims/run_all.py --quick
python experiments/claims/run_all.py --only law_of_staleness workers

Prints first how many hours it will take. A claim that was tested is not tested again, and one that
was interrupted is resumed.
"""

import sys
from pathlib import Path

from rljax.cli import claims_page

CLAIMS = (
    "correlation",
    "determinism",
    "noise",
    "wall_clock",
    "batch_size",
    "policies",
    "learning_rates",
    "workers",
    "law_of_staleness",
    "corrections",
)

INTRO = """
# Claims put to the test

What is said of A2C, A3C and DQN, each claim by an experiment that can be made again:
`python experiments/claims/run_all.py`, or the script of one claim. Environments are small, and so
are networks (two layers of 64 units but for MinAtar): what holds here need not hold for large ones.

How to read it. Every side of a comparison is tuned alike: five learning rates with five seeds each,
and more at an end of the range while the best is there; the figures are of other seeds, ten where
nothing else is said. Numbers are interquartile means over seeds with [low, high], their nominal 95%
intervals by bootstraps of the seeds, which with ten seeds hold the truth in about nine cases of ten
(`rljax/analysis/statistics.py`). One side is called above another where the interval of the
difference leaves out 0: where it does not, nothing is said, also not that the two are equal. One
in ten differences is such by chance. Answers are computed from the numbers.
"""

if __name__ == "__main__":
    sys.exit(claims_page.main(__doc__, Path(__file__).parent, CLAIMS, INTRO))
