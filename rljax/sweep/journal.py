"""A sweep's files as they grow: results.csv, and the journal finished.jsonl, which records how many
bytes of results.csv are complete.

Each line of the journal is about trials that were finished together, and written after their rows.
Rows beyond its last line are from a process that was killed: they are cut off, and their trials
trained again.
"""

import csv
import hashlib
import io
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rljax.sweep.results import Result, lines
from rljax.utils import atomic_io, verified
from rljax.utils.verified import DamagedError

TABLE, JOURNAL = "results.csv", "finished.jsonl"
_ENTRY = ("agents", "bytes", "sha256", "train_seconds", "wall_seconds")


class Journal:
    """The journal of a sweep in progress, and its table."""

    def __init__(self, folder: Path, metrics: Sequence[str] = ()):
        """Begins one, with columns for these `metrics` at least, or continues one; raises
        DamagedError if it is damaged, cannot be read or does not match results.csv, WriteError if
        it cannot be written."""
        self.table, self.journal = folder / TABLE, folder / JOURNAL
        self.metrics = metrics
        self.trials: list[int] = []  # numbers of the finished trials, in the order of their rows
        self.train_seconds, self.wall_seconds = 0.0, 0.0  # of these trials, and of the whole sweep
        entries, whole = read_entries(self.journal)
        if not entries:
            if not self.journal.exists() and self._has_rows():
                raise DamagedError(f"{self.table} has rows, and {self.journal} is missing")
            atomic_io.write(self.table, b"")
            atomic_io.write(self.journal, b"")
        self.size = entries[-1]["bytes"] if entries else 0
        self.hash = checked_sum(self.table, self.journal, entries)
        self.columns = self._header() if self.size else None  # of the table, unless it is empty
        for entry in entries:
            self.trials += entry["agents"]
            self.train_seconds, self.wall_seconds = entry["train_seconds"], entry["wall_seconds"]
        with atomic_io.writing(self.table):
            os.truncate(self.table, self.size)
            os.truncate(self.journal, whole)

    def _header(self):
        try:
            with atomic_io.opened(self.table) as file:
                return next(csv.reader(io.TextIOWrapper(file, "utf-8", newline="")))
        except (ValueError, csv.Error) as error:
            raise DamagedError(
                f"{self.table} is damaged: its header is invalid ({error})"
            ) from error

    def _has_rows(self):
        lines = itertools.accumulate(part.count(b"\n") for part in _parts(self.table))
        return any(number > 1 for number in lines)

    def add(self, result: Result, train_seconds: float, wall_seconds: float) -> None:
        """Adds finished trials: their rows, and then a line of the journal, with the seconds of the
        whole sweep so far. Raises WriteError if it cannot."""
        text = lines(result, self.columns, self.metrics)
        numbers = [trial.number for trial in result.trials]
        self.add_text(text, numbers, train_seconds, wall_seconds)

    def add_text(
        self, text: str, numbers: list[int], train_seconds: float, wall_seconds: float
    ) -> None:
        """The same with the rows as text, below a header if they are the table's first."""
        self.columns = self.columns or next(csv.reader(io.StringIO(text, newline="")))
        data = text.encode()
        atomic_io.append(self.table, text)
        with atomic_io.writing(self.table), open(self.table, "rb") as file:
            os.fsync(file.fileno())
        self.hash.update(data)
        self.size += len(data)
        self.train_seconds, self.wall_seconds = train_seconds, wall_seconds
        seconds = round(train_seconds, 3), round(wall_seconds, 3)
        entry = dict(zip(_ENTRY, (numbers, self.size, self.hash.hexdigest(), *seconds)))
        atomic_io.append(self.journal, atomic_io.json_bytes(entry).decode())
        self.trials += numbers


def read_entries(journal: Path) -> tuple[list[dict], int]:
    """(the whole lines of a journal, how many bytes they are); raises DamagedError if it is damaged
    or cannot be read. Another process may be writing it."""
    data = b"".join(_parts(journal, atomic_io.LARGEST))
    data = data[: data.rfind(b"\n") + 1]  # the rest is from a process that was killed
    try:
        entries = [atomic_io.parse_json(line) for line in data.splitlines()]
    except ValueError as error:
        raise DamagedError(f"{journal} is damaged: {error}") from error
    if not all(map(_is_entry, entries)):
        raise DamagedError(f"{journal} is damaged: a line lacks something")
    agents = [number for entry in entries for number in entry["agents"]]
    if len(set(agents)) < len(agents):
        raise DamagedError(f"{journal} is damaged: it has a trial twice")
    return entries, len(data)


def checked_sum(table: Path, journal: Path, entries: Sequence[dict]) -> Any:
    """The SHA-256 of a table up to what the journal's entries tell of; raises DamagedError if it is
    another one."""
    size = entries[-1]["bytes"] if entries else 0
    found, there, end = hashlib.sha256(), 0, b""
    for part in _parts(table):
        part = part[: size - there]
        found.update(part)
        there, end = there + len(part), part[-1:] or end
        if there == size:  # what follows may be large
            break
    is_whole = there == size and end == b"\n"
    if entries and not (is_whole and found.hexdigest() == entries[-1]["sha256"]):
        raise DamagedError(f"{table} was changed or cut: it is not what {journal} says")
    return found


def _parts(path, most=None):
    """The bytes of a file that may be large; none if there is no such file."""
    try:
        with atomic_io.opened(path) as file:
            if most is not None and os.fstat(file.fileno()).st_size > most:
                raise DamagedError(f"{path} is damaged: it is very large")
            while part := file.read(2**20):
                yield part
    except FileNotFoundError:
        return
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror})") from error


def _is_entry(entry):
    if not isinstance(entry, dict) or set(entry) != set(_ENTRY) or not verified.is_mark(entry):
        return False
    agents, seconds = entry["agents"], (entry["train_seconds"], entry["wall_seconds"])
    if not isinstance(agents, list) or not all(map(verified.is_count, agents)):
        return False
    return all(type(x) in (int, float) and 0 <= x < 2**63 for x in seconds)
