"""Shows a run's agent playing, as a GIF or an MP4.

python experiments/watch.py RUN_DIR --episodes 3 --output agent.gif
python experiments/watch.py RUN_DIR --seed 2 --checkpoint best --output agent.mp4
"""

import sys

from rljax.cli import watch

if __name__ == "__main__":
    sys.exit(watch.main(__doc__))
