"""Hands rows to loggers, each in a thread of its own: one that is slow, fails or loses its network
neither stops nor slows training."""

import queue
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rljax.loggers import tables
from rljax.utils import errors

WAITING = 100_000  # rows that wait for a slow logger; later ones are left out
PATIENCE = 60.0  # seconds that loggers have to end


class Feed:
    """Loggers by name, as `trackers.make` gives them. What went wrong is warned of in the thread
    that calls, once for each logger."""

    def __init__(self, loggers: Mapping[str, Any], again: str = ""):
        """`again`: how rows that a logger lacks can be written to it, where {} is its name."""
        self.again = again
        self.threads = [_Thread(name, logger) for name, logger in loggers.items()]

    def begin(self, record: Mapping, rows: Sequence[Mapping] = ()) -> None:
        """Begins, and writes the rows that a resumed run has already."""
        for thread in self.threads:
            thread.start()
            thread.put("begin", record)
        self.write(rows)

    def write(self, rows: Sequence[Mapping]) -> None:
        """Writes rows, whose numbers may be NumPy's."""
        if self.threads:
            for row in [{name: _plain(x) for name, x in row.items()} for row in rows]:
                for thread in self.threads:
                    thread.put("write", row)
            self._tell()

    def end(self, summary: Mapping) -> dict[str, dict[str, float]]:
        """Writes the final evaluation, ends, and waits for the loggers; returns the seconds that
        each took to begin and to end, and of the training thread's in between."""
        self.write(tables.final_rows(summary))
        for thread in self.threads:
            thread.put("end", summary, at_once=False)
        deadline = time.monotonic() + PATIENCE
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                thread.problem = thread.problem or f"has not ended after {PATIENCE:.0f} s"
        self._tell()
        return {thread.name: thread.seconds for thread in self.threads}

    def _tell(self):
        for thread in self.threads:
            if thread.problem and not thread.is_told:
                thread.is_told = True
                how = f"; {self.again.format(thread.name)}" if self.again else ""
                warnings.warn(f"logger {thread.name}: {thread.problem}{how}", stacklevel=3)


class _Thread(threading.Thread):
    """A logger, called for what is put; after an error it is called no more."""

    def __init__(self, name, logger):
        super().__init__(name=name, daemon=True)
        self.logger, self.calls = logger, queue.Queue(WAITING)
        self.seconds = {"begin": 0.0, "training_thread": 0.0, "end": 0.0}
        self.problem, self.is_told = None, False

    def put(self, method, given, at_once=True):
        begun = time.perf_counter()
        if not self.problem:
            try:
                self.calls.put((method, given), block=not at_once, timeout=PATIENCE)
            except queue.Full:
                self.problem = f"is too slow: more than {WAITING:,} rows wait for it"
        self.seconds["training_thread"] += time.perf_counter() - begun

    def run(self):
        method = None
        while method != "end" and not self.problem:
            method, given = self.calls.get()
            begun = time.perf_counter()
            try:
                getattr(self.logger, method)(given)
            except BaseException as error:  # whatever it does, exits among it
                self.problem = f"{method} failed: {errors.in_a_line(error)}"
            if method in self.seconds:
                self.seconds[method] = time.perf_counter() - begun


def _plain(x):
    """A number as the tables have it, with the digits of its own kind."""
    if isinstance(x, np.floating):
        return float(str(x))
    return x.item() if isinstance(x, np.generic | np.ndarray) else x
