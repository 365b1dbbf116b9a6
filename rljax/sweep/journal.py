"""A sweep's files as they grow: results.csv, and finished.jsonl, which says where it is whole.

Each line of the journal is of agents that were finished together, and is written after their rows.
What results.csv holds beyond the last line is of a process that was killed: it is cut off, and its
agents are trained again.
"""

import hashlib
import json
import os
from pathlib import Path

from rljax import files
from rljax.sweep.results import Result, lines

TABLE, JOURNAL = "results.csv", "finished.jsonl"
_ENTRY = ("agents", "bytes", "sha256", "train_seconds", "wall_seconds")


class Journal:
    """Of a sweep under way."""

    def __init__(self, folder: Path, header: str):
        """Begins one, or takes up what is there.

        Args:
            header: the first line of results.csv.

        Raises:
            ValueError: results.csv is not what the journal says, or the journal is damaged.
            WriteError: they could not be written.
        """
        self.table, self.journal = folder / TABLE, folder / JOURNAL
        self.agents: list[int] = []
        """Numbers of the agents that are finished, in the order of their rows."""
        self.train_seconds, self.wall_seconds = 0.0, 0.0
        """That they took, and that the sweep was at work for up to their end."""
        entries, whole = self._entries()
        if not entries:
            if not self.journal.exists() and self._has_rows():
                raise ValueError(f"{self.table} has rows, and {self.journal} is missing")
            files.write(self.table, header.encode())
            files.write(self.journal, b"")
        data = self.table.read_bytes() if self.table.exists() else b""
        self.size = entries[-1]["bytes"] if entries else len(data)
        self.hash = hashlib.sha256(data[: self.size])
        if entries and self.hash.hexdigest() != entries[-1]["sha256"]:
            raise ValueError(f"{self.table} was changed or cut: it is not what {self.journal} says")
        for entry in entries:
            self.agents += entry["agents"]
            self.train_seconds, self.wall_seconds = entry["train_seconds"], entry["wall_seconds"]
        with files.writing(self.table):
            os.truncate(self.table, self.size)
            os.truncate(self.journal, whole)

    def _has_rows(self):
        return self.table.exists() and self.table.read_bytes().count(b"\n") > 1

    def _entries(self):
        """(what the whole lines say, how many bytes they are)."""
        data = self.journal.read_bytes() if self.journal.exists() else b""
        data = data[: data.rfind(b"\n") + 1]  # the rest is of a process that was killed
        try:
            entries = [json.loads(line) for line in data.splitlines()]
            for entry in entries:
                if set(entry) != set(_ENTRY):
                    raise ValueError("a line lacks something")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.journal} is damaged: {error}") from error
        return entries, len(data)

    def add(self, result: Result, train_seconds: float, wall_seconds: float) -> None:
        """Adds finished agents: their rows, and then a line of the journal.

        Args:
            train_seconds, wall_seconds: of the whole sweep so far.

        Raises:
            WriteError: the disk is full, or the like. Rows without their line in the journal are
                cut off when the sweep is gone on with.
        """
        text = lines(result)
        data = text.encode()
        files.append(self.table, text)
        with files.writing(self.table), open(self.table, "rb") as file:
            os.fsync(file.fileno())
        self.hash.update(data)
        self.size += len(data)
        self.train_seconds, self.wall_seconds = train_seconds, wall_seconds
        numbers = [agent.number for agent in result.agents]
        seconds = round(train_seconds, 3), round(wall_seconds, 3)
        entry = dict(zip(_ENTRY, (numbers, self.size, self.hash.hexdigest(), *seconds)))
        files.append(self.journal, json.dumps(entry) + "\n")
        self.agents += numbers
