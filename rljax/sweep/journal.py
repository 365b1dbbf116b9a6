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


class Journal:
    """Of a sweep under way. A fresh one begins with a header in results.csv, and no lines."""

    def __init__(self, folder: Path):
        """Takes up what is there.

        Raises:
            ValueError: results.csv is not what the journal says.
        """
        self.table, self.journal = folder / TABLE, folder / JOURNAL
        self.agents: list[int] = []
        """Numbers of the agents that are finished, in the order of their rows."""
        self.seconds = 0.0
        """That training them took."""
        whole, size, digest = 0, None, ""
        for line in self.journal.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # of a process that was killed
            entry = json.loads(line)
            self.agents += entry["agents"]
            self.seconds, size, digest = entry["seconds"], entry["bytes"], entry["sha256"]
            whole += len(line)
        data = self.table.read_bytes()
        if size is None:
            size = data.find(b"\n") + 1
        self.hash = hashlib.sha256(data[:size])
        if digest and self.hash.hexdigest() != digest:
            raise ValueError(f"{self.table} was changed or cut: it is not what {self.journal} says")
        with files.writing(self.table):
            os.truncate(self.table, size)
            os.truncate(self.journal, whole)
        self.size = size

    def add(self, result: Result, seconds: float) -> None:
        """Adds finished agents, to both files.

        Args:
            seconds: of training since the sweep began.

        Raises:
            WriteError: the disk is full, or the like; both are as they were.
        """
        text = lines(result)
        data = text.encode()
        files.append(self.table, text)
        with files.writing(self.table), open(self.table, "rb") as file:
            os.fsync(file.fileno())
        self.hash.update(data)
        self.size += len(data)
        self.seconds = seconds
        numbers = [agent.number for agent in result.agents]
        entry = {
            "agents": numbers,
            "bytes": self.size,
            "sha256": self.hash.hexdigest(),
            "seconds": round(seconds, 3),
        }
        files.append(self.journal, json.dumps(entry) + "\n")
        self.agents += numbers
