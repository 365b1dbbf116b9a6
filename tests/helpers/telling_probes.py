"""An environment that tells of its process. It is quick to import: gymnax is not needed for it."""

import json
import random
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
from host_probes import RewardByAction

from rljax.utils import forkserver


class Telling(RewardByAction):
    """Writes what it draws from global generators, and settings of JAX, in processes."""

    def __init__(self, folder):
        self.folder, self.draws = folder, self.draw() if parent_process() else []

    def draw(self):
        return [np.random.random(), random.random()]

    def reset(self, *, seed=None, options=None):
        if seed is not None and parent_process():
            settings = {name: str(value) for name, value in forkserver.jax_settings().items()}
            told = {"draws": [self.draws, self.draw()], "settings": settings}
            Path(self.folder, f"{seed}.json").write_text(json.dumps(told))
        return super().reset(seed=seed)
