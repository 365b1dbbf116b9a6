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

WAITING = 10_000  # log points that wait for a slow logger; after more it is left behind
PATIENCE = 60.0  # seconds that loggers have to end


class Feed:
    """Loggers by name, as `trackers.make` gives them. What went wrong is warned of in the thread
    that calls, once for each logger."""

    def __init__(self, loggers: Mapping[str, Any], again: str = ""):
        """`again`: how rows that a logger lacks can be written to it, where {} is its name."""
        self.again, self.seconds = again, 0.0
        self.threads = [_Thread(name, logger) for name, logger in loggers.items()]

    def begin(self, record: Mapping, rows: Sequence[Mapping] = ()) -> None:
        """Begins, and writes the rows that a resumed run has already."""
        for thread in self.threads:
            thread.start()
            thread.put("begin", record)
        self.write(rows)

    def write(self, rows: Sequence[Mapping]) -> None:
        """Writes rows, whose numbers may be NumPy's, and which stay as they are."""
        begun = time.perf_counter()
        for thread in self.threads if rows else ():
            thread.put("write", rows)
        self._tell()
        self.seconds += time.perf_counter() - begun

    def end(self, summary: Mapping) -> dict[str, Any]:
        """Writes the final evaluation, ends, and waits for the loggers; returns the seconds that
        the thread which called spent in between, and those that each took to begin and to end."""
        self.write(tables.final_rows(summary))
        for thread in self.threads:
            thread.put("end", {**summary}, at_once=False)
        deadline = time.monotonic() + PATIENCE
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                thread.problem = thread.problem or f"has not ended after {PATIENCE:.0f} s"
        self._tell()
        each = {thread.name: thread.seconds for thread in self.threads}
        return {"training_thread": self.seconds, **each} if each else {}

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
        self.seconds = {"begin": 0.0, "end": 0.0}
        self.problem, self.is_told = None, False

    def put(self, method, given, at_once=True):
        if not self.problem:
            try:
                self.calls.put((method, given), block=not at_once, timeout=PATIENCE)
            except queue.Full:
                self.problem = f"is too slow: more than {WAITING:,} log points wait for it"

    def run(self):
        method = None
        while method != "end" and not self.problem:
            method, given = self.calls.get()
            begun = time.perf_counter()
            try:
                if method == "write":
                    for row in given:
                        self.logger.write({name: _plain(x) for name, x in row.items()})
                else:
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
