"""How long what workers and the holder do takes, for simulations. Needs no JAX.

Of each gradient it is known when its parameters were pulled, when it had been pushed and how long
that had waited for room, from when on the holder was ready for it, when the holder took it, and
when what it made was published. Then, as `events` has them:

    work      from the pull to the push, without what that waited
    transit   from the push until the holder takes it; of gradients that waited for the holder,
              until it took the one before
    service   from there until it is published; of gradients that waited, from the publication
              before, so that it has in it whatever else the holder did
    pause     from the push to the worker's next pull
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rljax.utils import atomic_io, errors

SIZE = 16_384  # gradients, the last ones, that are known
DURATIONS = ("work", "transit", "service", "pause")
AFTER = 1e-6  # seconds by which a gradient comes after the one that the holder took before it
PROMPT = 50e-6  # seconds: what the holder takes so soon after it is ready has waited for it
_MICROSECONDS = 1e6


class Timing(NamedTuple):
    """The last gradients of a run, each in the place of its number modulo `SIZE`."""

    records: Any
    """float64 [SIZE, 7]: the worker, and in seconds when its gradient before had been pushed and
    how long that had waited, when its parameters were pulled, when the holder was ready, when it
    was taken, and when published."""
    count: Any
    """int64 gradients so far."""


def empty() -> Timing:
    return Timing(np.zeros((SIZE, 7)), np.zeros((), np.int64))


def add(timing: Timing, record: tuple[float, ...]) -> None:
    """Adds a gradient, in place."""
    timing.records[int(timing.count) % SIZE] = record
    timing.count[...] += 1


def durations(timing: Timing) -> dict[str, np.ndarray]:
    """{duration: [N] seconds} and {"worker": [N]} of the gradients of one run, in their order, from
    where all workers had started, without the last one of each."""
    count = int(timing.count)
    records = np.roll(timing.records, -count, axis=0) if count > SIZE else timing.records[:count]
    worker, _, _, pulled, ready, taken, published = records.T
    pushed, waited, pulled_again = np.full((3, len(records)), np.nan)
    for index in np.unique(worker):
        own = np.flatnonzero(worker == index)
        pushed[own[:-1]], waited[own[:-1]], pulled_again[own[:-1]] = records[own[1:], 1:4].T
    has_waited = np.logical_and(pushed < ready, taken - ready < PROMPT)
    before = np.roll([taken + AFTER, published], 1, axis=1)
    begun = np.where(has_waited, before, [taken, taken])
    found = {
        "work": pushed - pulled - waited,
        "transit": begun[0] - pushed,
        "service": published - np.maximum(begun[1], pushed),
        "pause": pulled_again - pushed,
    }
    started = max((pulled[worker == i].min() for i in np.unique(worker)), default=0.0)
    is_whole = np.logical_and(np.isfinite(pushed), pulled >= started)
    is_whole[:1] = False  # of which the one before is not known
    found = {name: np.maximum(x, 0.0)[is_whole] for name, x in found.items()}
    return {"worker": worker[is_whole].astype(int), **found}


def summary(timing: Timing) -> dict:
    """What a seed's timing adds to a run's summary: `durations`, in whole microseconds."""
    found = durations(timing)
    micro = {name: np.rint(_MICROSECONDS * found[name]).astype(int) for name in DURATIONS}
    return {name: x.tolist() for name, x in {"worker": found["worker"], **micro}.items()}


def read(run_dir: Path, name: str) -> np.ndarray:
    """[W, N] the durations of N gradients of each worker of a run, in seconds, in their order;
    raises ValueError if they cannot be read.

    Args:
        name: one of `DURATIONS`.
    """
    text = f"{name} = 'measured:{run_dir}'"
    try:
        told = _read(run_dir / "summary.json", os.stat(run_dir / "summary.json").st_mtime_ns)
        worker, found = np.array(told["worker"], int), np.array(told[name], np.float32)
        own = [found[worker == index] for index in np.unique(worker)]
        number = min(map(len, own))
        # They end together, and a slow worker has fewer.
        found = np.stack([x[len(x) - number :] for x in own]) / _MICROSECONDS
        if not np.all(np.isfinite(found) & (found >= 0)):
            raise ValueError("no durations")
        return found.astype(np.float32)
    except OSError as error:
        raise ValueError(f"{text}: no run that has ended ({error.strerror})") from error
    except errors.WRONG as error:
        raise ValueError(f"{text}: no run of A3C with --log-timing") from error


@lru_cache(maxsize=8)
def _read(path, _):
    """What a sweep asks for once for each of its trials; anew if the file has changed."""
    return atomic_io.read_json(path)["timing"]
