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

from rljax.sweep.results import Result, lines
from rljax.utils import atomic_io, verified

TABLE, JOURNAL = "results.csv", "finished.jsonl"
_ENTRY = ("agents", "bytes", "sha256", "train_seconds", "wall_seconds")


class Journal:
    """The journal of a sweep in progress, and its table."""

    def __init__(self, folder: Path, metrics: Sequence[str] = ()):
        """Begins one, with columns for these `metrics` at least, or continues one; raises
        ValueError if it is damaged, cannot be read or does not match results.csv, WriteError if it
        cannot be written."""
        self.table, self.journal = folder / TABLE, folder / JOURNAL
        self.metrics = metrics
        self.trials: list[int] = []  # numbers of the finished trials, in the order of their rows
        self.train_seconds, self.wall_seconds = 0.0, 0.0  # of these trials, and of the whole sweep
        entries, whole = self._entries()
        if not entries:
            if not self.journal.exists() and self._has_rows():
                raise ValueError(f"{self.table} has rows, and {self.journal} is missing")
            atomic_io.write(self.table, b"")
            atomic_io.write(self.journal, b"")
        self.size = entries[-1]["bytes"] if entries else 0
        self.hash, there, end = self._sum()
        is_whole = there == self.size and end == b"\n"
        if entries and not (is_whole and self.hash.hexdigest() == entries[-1]["sha256"]):
            raise ValueError(f"{self.table} was changed or cut: it is not what {self.journal} says")
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
            raise ValueError(f"{self.table} is damaged: its header is invalid ({error})") from error

    def _has_rows(self):
        lines = itertools.accumulate(part.count(b"\n") for part in _parts(self.table))
        return any(number > 1 for number in lines)

    def _sum(self):
        """(SHA-256 of the table up to its size, how many bytes that are, the last one)."""
        found, there, end = hashlib.sha256(), 0, b""
        for part in _parts(self.table):
            part = part[: self.size - there]
            found.update(part)
            there, end = there + len(part), part[-1:] or end
            if there == self.size:  # what follows may be large
                break
        return found, there, end

    def _entries(self):
        """(the whole lines as JSON, how many bytes they are)."""
        data = b"".join(_parts(self.journal, atomic_io.LARGEST))
        data = data[: data.rfind(b"\n") + 1]  # the rest is from a process that was killed
        try:
            entries = [atomic_io.parse_json(line) for line in data.splitlines()]
        except ValueError as error:
            raise ValueError(f"{self.journal} is damaged: {error}") from error
        if not all(map(_is_entry, entries)):
            raise ValueError(f"{self.journal} is damaged: a line lacks something")
        agents = [number for entry in entries for number in entry["agents"]]
        if len(set(agents)) < len(agents):
            raise ValueError(f"{self.journal} is damaged: it has a trial twice")
        return entries, len(data)

    def add(self, result: Result, train_seconds: float, wall_seconds: float) -> None:
        """Adds finished trials: their rows, and then a line of the journal, with the seconds of the
        whole sweep so far. Raises WriteError if it cannot."""
        text = lines(result, self.columns, self.metrics)
        self.columns = self.columns or next(csv.reader(io.StringIO(text, newline="")))
        data = text.encode()
        atomic_io.append(self.table, text)
        with atomic_io.writing(self.table), open(self.table, "rb") as file:
            os.fsync(file.fileno())
        self.hash.update(data)
        self.size += len(data)
        self.train_seconds, self.wall_seconds = train_seconds, wall_seconds
        numbers = [trial.number for trial in result.trials]
        seconds = round(train_seconds, 3), round(wall_seconds, 3)
        entry = dict(zip(_ENTRY, (numbers, self.size, self.hash.hexdigest(), *seconds)))
        atomic_io.append(self.journal, atomic_io.json_bytes(entry).decode())
        self.trials += numbers


def _parts(path, most=None):
    """The bytes of a file that may be large; none if there is no such file."""
    try:
        with atomic_io.opened(path) as file:
            if most is not None and os.fstat(file.fileno()).st_size > most:
                raise ValueError(f"{path} is damaged: it is very large")
            while part := file.read(2**20):
                yield part
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error


def _is_entry(entry):
    if not isinstance(entry, dict) or set(entry) != set(_ENTRY) or not verified.is_mark(entry):
        return False
    agents, seconds = entry["agents"], (entry["train_seconds"], entry["wall_seconds"])
    if not isinstance(agents, list) or not all(map(verified.is_count, agents)):
        return False
    return all(type(x) in (int, float) and 0 <= x < 2**63 for x in seconds)
