"""How long what workers and the holder do takes, for simulations. Needs no JAX.

Of each gradient it is known when its parameters were pulled, when it had been pushed and how long
that had waited for room, from when on the holder was ready for it, when the holder took it, and
when what it made was published. A gradient that waited for room could be pushed from when the
holder took the worker's one before; the rest of the wait is how long the worker took to notice.
Then, as `events` has them:

    work      from the pull until the gradient was computed
    transit   from when it could be pushed until the holder takes it; where the holder was not ready
              for it, until it had been pushed
    service   from there until it is published; where the holder was not ready, from the publication
              before, so that it has in it whatever else the holder did
    pause     from when it could be pushed to the worker's next pull

In a simulation, gradients have the durations of those that the run had after as many gradients:
what slowed all workers at once, or the holder and a worker, does so there too.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.a3c.transport import ROOM
from rljax.utils import atomic_io, errors

SIZE = 16_384  # gradients, the last ones, that are known
DURATIONS = ("work", "transit", "service", "pause")
_MICROSECONDS = 1e6


class Timing(NamedTuple):
    """The last gradients of a run, each in the place of its number modulo `SIZE`."""

    records: Any
    """float64 [SIZE, 8]: the worker; in seconds when its gradient before had been pushed and how
    long that had waited, when its parameters were pulled, when the holder was ready, when it was
    taken, and when published; and its staleness."""
    count: Any
    """int64 gradients so far."""


def empty() -> Timing:
    return Timing(np.zeros((SIZE, 8)), np.zeros((), np.int64))


def add(timing: Timing, record: tuple[float, ...]) -> None:
    """Adds a gradient, in place."""
    timing.records[int(timing.count) % SIZE] = record
    timing.count[...] += 1


def durations(timing: Timing) -> dict[str, np.ndarray]:
    """{duration: [N] seconds}, {"worker": [N]} and {"staleness": [N]} of the gradients of one run,
    in their order, from where all workers had started to where the first has no more."""
    count = int(timing.count)
    records = np.roll(timing.records, -count, axis=0) if count > SIZE else timing.records[:count]
    worker, _, _, pulled, ready, taken, published, staleness = records.T
    pushed, waited, pulled_again = np.full((3, len(records)), np.nan)
    room = np.full(len(records), -np.inf)  # from when on there was room for it
    started, last = -np.inf, len(records)
    for index in np.unique(worker):
        own = np.flatnonzero(worker == index)
        pushed[own[:-1]], waited[own[:-1]], pulled_again[own[:-1]] = records[own[1:], 1:4].T
        room[own[ROOM:]] = taken[own[:-ROOM]]
        started, last = max(started, pulled[own[0]]), min(last, own[-1])
    computed = pushed - waited
    could = np.clip(room, computed, pushed)
    is_late = pushed < ready  # the holder was
    begun = np.where(is_late, np.maximum(np.roll(published, 1), pushed), taken)
    found = {
        "work": computed - pulled,
        "transit": np.where(is_late, pushed, taken) - could,
        "service": published - begun,
        "pause": pulled_again - could,
    }
    numbers = np.arange(len(records))
    # Of the first one, what was published before is not known.
    is_whole = (pulled >= started) & (numbers > 0) & (numbers < last)
    found = {name: np.maximum(x, 0.0)[is_whole] for name, x in found.items()}
    who, old = worker[is_whole].astype(int), staleness[is_whole].astype(int)
    return {"worker": who, "staleness": old, **found}


def summary(timing: Timing) -> dict:
    """What a seed's timing adds to a run's summary: `durations`, in whole microseconds."""
    found = durations(timing)
    micro = {name: np.rint(_MICROSECONDS * found[name]).astype(int) for name in DURATIONS}
    return {name: x.tolist() for name, x in (found | micro).items()}


def read(run_dir: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Durations of a run, in seconds; raises ValueError if they cannot be read.

    Args:
        name: one of `DURATIONS`.

    Returns:
        (durations [W, N] of each worker's gradients in their order, used again from the first on
        where a worker has fewer than N; int32 [W, T] how many of each worker's gradients there were
        before each of the run's T gradients)
    """
    text = f"{name} = 'measured:{run_dir}'"
    try:
        told = _read(run_dir / "summary.json", os.stat(run_dir / "summary.json").st_mtime_ns)
        worker, found = np.array(told["worker"], int), np.array(told[name], np.float32)
        is_own = worker == np.unique(worker)[:, None]
        number = int(np.max(np.sum(is_own, axis=1)))
        found = np.stack([np.resize(found[own], number) for own in is_own]) / _MICROSECONDS
        if not np.all(np.isfinite(found) & (found >= 0)):
            raise ValueError("no durations")
        before = np.cumsum(is_own, axis=1) - is_own
        return found.astype(np.float32), before.astype(np.int32)
    except OSError as error:
        raise ValueError(f"{text}: no run that has ended ({error.strerror})") from error
    except errors.WRONG as error:
        raise ValueError(f"{text}: no run of A3C with --log-timing") from error


@lru_cache(maxsize=8)
def _read(path, _):
    """What a sweep asks for once for each of its trials; anew if the file has changed."""
    return atomic_io.read_json(path)["timing"]
