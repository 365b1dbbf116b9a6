"""The parts of a sweep's table that processes write beside each other, and their merging.

joiners/NAME/results.csv, finished.jsonl   a part, written by one process
joiners/NAME/failures.jsonl                trials that it could not train to their end
joiners/NAME/machine.json                  what its results depend on
results.csv, finished.jsonl                the table, of all parts that are merged
"""

import csv
import io
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from rljax.runs import directory
from rljax.sweep.journal import JOURNAL, TABLE, Journal, checked_sum, read_entries
from rljax.sweep.results import OLD_TRIAL, as_csv
from rljax.utils import atomic_io, errors
from rljax.utils.verified import DamagedError

FOLDER, FAILURES, MACHINE = "joiners", "failures.jsonl", "machine.json"


class Reader:
    """Reads what all processes have finished, again and again: files that have not grown are not
    read."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[Path, tuple[int, list]] = {}  # sizes, and what was in them

    def merged(self) -> set[int]:
        """The numbers of the trials in the table; raises DamagedError if its journal is damaged."""
        return set(self._latest(self.folder / JOURNAL, _numbers))

    def finished(self) -> set[int]:
        """The same of those in the table or in a part."""
        in_parts = (self._latest(path, _numbers) for path in journals(self.folder))
        return self.merged().union(*in_parts)

    def failures(self, but: Collection[str] = ()) -> dict[int, str]:
        """Why trials could not be trained to their end, by their numbers, without those in the
        parts `but`; raises DamagedError if a file is damaged."""
        paths = sorted(self.folder.glob(f"{FOLDER}/*/{FAILURES}"))
        paths = [path for path in paths if path.parent.name not in but]
        return dict(failure for path in paths for failure in self._latest(path, _failures))

    def _latest(self, path, read):
        try:
            with atomic_io.opened(path) as file:  # which asks the share how long it is
                size = file.seek(0, io.SEEK_END)
        except OSError:  # not begun, or merged and removed
            return []
        if self._read.get(path, (None,))[0] != size:
            self._read[path] = size, read(path)
        return self._read[path][1]


def journals(folder: Path) -> list[Path]:
    """Those of the parts."""
    return sorted(folder.glob(f"{FOLDER}/*/{JOURNAL}"))


def names(folder: Path) -> list[str]:
    """Of the processes that have a part, or had begun one."""
    found = folder.glob(f"{FOLDER}/*-*/")
    return sorted(path.name for path in found)


def _numbers(path):
    return [number for entry in read_entries(path)[0] for number in entry["agents"]]


def _failures(path):
    try:
        lines = atomic_io.read(path, atomic_io.LARGEST).splitlines(keepends=True)
        told = [atomic_io.parse_json(line) for line in lines if line.endswith(b"\n")]
        return [(failure["trial"], failure["why"]) for failure in told]
    except (OSError, *errors.WRONG) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def note_failure(part: Path, number: int, why: str) -> None:
    """Tells the other processes of a trial; raises WriteError if it cannot."""
    atomic_io.append(part / FAILURES, atomic_io.json_bytes(dict(trial=number, why=why)).decode())


class _Piece(NamedTuple):
    """Trials of a part that were finished together."""

    place: int  # of the first of them in the plan
    table: Path
    begin: int  # bytes of the part before their rows
    end: int
    numbers: list[int]
    seconds: float  # that training took
    wall_seconds: float  # since the part's process began


def merge(folder: Path, journal: Journal, places: Mapping[int, int]) -> None:
    """Adds the trials of all parts to the table, each once, in the order of `places`, which are
    those of trials in the plan: where batches are of the same size, in the one that a single
    process writes. Parts of running processes may grow meanwhile.

    Raises:
        DamagedError: a part is damaged, or of other trials.
        WriteError: the table could not be written; what it holds is whole.
    """
    pieces = sorted(piece for path in journals(folder) for piece in _pieces(path, places))
    before = journal.wall_seconds
    for piece in pieces:
        merged = set(journal.trials)
        if numbers := [x for x in piece.numbers if x not in merged]:
            text = _rows(piece, numbers, journal.columns)
            wall_seconds = max(journal.wall_seconds, before + piece.wall_seconds)
            journal.add_text(text, numbers, journal.train_seconds + piece.seconds, wall_seconds)


def _pieces(path, places):
    entries, _ = read_entries(path)
    table = path.with_name(TABLE)
    checked_sum(table, path, entries)
    begin, seconds = 0, 0.0
    for entry in entries:
        numbers = entry["agents"]
        if not numbers or not all(number in places for number in numbers):
            raise DamagedError(f"{table} is of other trials than the sweep's")
        facts = entry["bytes"], numbers, entry["train_seconds"] - seconds, entry["wall_seconds"]
        yield _Piece(places[numbers[0]], table, begin, *facts)
        begin, seconds = entry["bytes"], entry["train_seconds"]


def _rows(piece, numbers, columns):
    """The rows of these trials as text, for a table of these columns; without any, below the
    header."""
    with atomic_io.opened(piece.table) as file:
        header = file.readline()
        begin = file.seek(piece.begin or len(header))
        data = file.read(piece.end - begin)
    (names,) = _read_csv(header)
    places = {name: i for i, name in enumerate(names)} | {OLD_TRIAL: 0}
    at = [places.get(name) for name in columns or names]  # None: a column of an earlier version
    wanted = {str(number) for number in numbers}
    found = (row for row in _read_csv(data) if row[0] in wanted)
    rows = [["" if i is None else row[i] for i in at] for row in found]
    return "".join(as_csv(row) + "\n" for row in ([] if columns else [names]) + rows)


def _read_csv(data):
    return csv.reader(io.StringIO(data.decode(), newline=""))


def begin(folder: Path, name: str, facts: Mapping) -> Path:
    """The folder of a part, for whose process there is one already, with what its results depend
    on; raises WriteError."""
    atomic_io.write_json(folder / FOLDER / name / MACHINE, facts)
    return folder / FOLDER / name


def remove(folder: Path, gone: Collection[str]) -> None:
    """Removes parts that are merged, and the folder of parts with the last of them: config.json
    tells what their results depended on. Raises ValueError if that is damaged, WriteError if it
    cannot be written."""
    files = [folder / FOLDER / name / MACHINE for name in gone]
    if told := [atomic_io.read_json(path) for path in files if path.exists()]:
        record = directory.read_record(folder)
        record["joined"] = [*record.get("joined", []), *told]
        atomic_io.write_json(folder / "config.json", record)
    for name in gone:
        shutil.rmtree(folder / FOLDER / name, ignore_errors=True)
    if not names(folder):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
