"""Seconds and speed of training."""

import time
from typing import Any


class Clock:
    """Measures training, into a `records.Progress`, since `begun`: time.perf_counter() before
    compilation."""

    def __init__(self, progress: Any, begun: float):
        self.progress, self.last = progress, begun
        self.origin = begun - progress.wall_seconds
        self.speed, self.in_training = 0.0, None
        self.begin_row()

    def lap(self, steps: int, in_training: Any) -> None:
        """Counts a chunk of this number of environment steps. Chunks up to the first that has steps
        count as compilation, anew for each set of seeds `in_training`."""
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
        """Measures the speed from here on anew."""
        self.steps, self.seconds = 0, 0.0

    def pause(self) -> None:
        """Excludes the time since the last lap from training time."""
        self.last = time.perf_counter()
