"""Seconds and speed of training."""

import time
from typing import Any


class Clock:
    """Measures training, into a `start.Progress`."""

    def __init__(self, progress: Any, begun: float):
        """
        Args:
            begun: time.perf_counter() when training, its compilation included, began.
        """
        self.progress, self.last = progress, begun
        self.origin = begun - progress.wall_seconds
        self.speed, self.in_training = 0.0, None
        self.begin_row()

    def lap(self, steps: int, in_training: Any) -> None:
        """After a chunk of this number of environment steps.

        The first one that has any, and those before, are left to compilation.

        Args:
            in_training: the seeds that are trained; others begin with a compilation again.
        """
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        progress = self.progress
        progress.wall_seconds = now - self.origin
        if in_training != self.in_training:
            progress.compile_seconds += seconds
            self.speed = steps / seconds
            self.in_training = in_training if steps else None
            return
        self.steps, self.seconds = self.steps + steps, self.seconds + seconds
        self.speed = self.steps / self.seconds
        progress.train_steps += steps
        progress.train_seconds += seconds

    def begin_row(self) -> None:
        """What is measured from here on is the speed of another row."""
        self.steps, self.seconds = 0, 0.0

    def pause(self) -> None:
        """What was done since the lap is no training."""
        self.last = time.perf_counter()
