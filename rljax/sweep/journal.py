"""A sweep's files as they grow: results.csv, and finished.jsonl, which says where it is whole.

Each line of the journal is of trials that were finished together, and is written after their rows.
What results.csv holds beyond the last line is of a process that was killed: it is cut off, and its
trials are trained again.
"""

import csv
import hashlib
import io
import os
from pathlib import Path

from rljax.sweep.results import Result, lines
from rljax.utils import atomic_io, verified

TABLE, JOURNAL = "results.csv", "finished.jsonl"
_ENTRY = ("agents", "bytes", "sha256", "train_seconds", "wall_seconds")


class Journal:
    """Of a sweep in progress."""

    def __init__(self, folder: Path):
        """Begins one, or continues what is there.

        Raises:
            ValueError: results.csv is not what the journal says, or the journal is damaged, or
                cannot be read.
            WriteError: they could not be written.
        """
        self.table, self.journal = folder / TABLE, folder / JOURNAL
        self.trials: list[int] = []
        """Numbers of the trials that are finished, in the order of their rows."""
        self.train_seconds, self.wall_seconds = 0.0, 0.0
        """That they took, and that the sweep took up to their end."""
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
        self.columns = self._header() if self.size else None
        """Of the table; None as long as it is empty."""
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
            raise ValueError(f"{self.table} is damaged: its header is none ({error})") from error

    def _has_rows(self):
        lines = 0
        for part in _parts(self.table):
            lines += part.count(b"\n")
            if lines > 1:
                return True
        return False

    def _sum(self):
        """(SHA-256 of the table up to its size, how many bytes of that there are, the last one)."""
        found, there, end = hashlib.sha256(), 0, b""
        for part in _parts(self.table):
            part = part[: self.size - there]
            if not part:
                break
            found.update(part)
            there, end = there + len(part), part[-1:]
        return found, there, end

    def _entries(self):
        """(what the whole lines say, how many bytes they are)."""
        data = b"".join(_parts(self.journal, atomic_io.LARGEST))
        data = data[: data.rfind(b"\n") + 1]  # the rest is of a process that was killed
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
        """Adds finished trials: their rows, and then a line of the journal.

        Args:
            train_seconds, wall_seconds: of the whole sweep so far.

        Raises:
            WriteError: the disk is full, or the like. Rows without their line in the journal are
                cut off when the sweep is resumed.
        """
        text = lines(result, self.columns)
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
    """The bytes of a file that may be large; none where there is no such file."""
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
