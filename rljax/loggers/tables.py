"""The tables of a run, which grow by whole rows: metrics.csv and evaluations.csv."""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from rljax.runs import checkpoints
from rljax.utils import atomic_io

FIGURES = (
    "episodic_return",
    "episodic_length",
    "policy_loss",
    "value_loss",
    "entropy",
    "explained_variance",
    "grad_norm",
)
"""Means over a row, in every table of training."""

METRICS = (
    "seed",
    "env_steps",
    "updates",
    "wall_seconds",
    "episodes",
    *FIGURES,
    "learning_rate",
    "steps_per_second",
)
"""Columns of metrics.csv: one row per seed and log point."""

STALENESS = ("staleness_mean", "staleness_max")
"""Columns that A3C adds to them."""

EVALUATIONS = ("seed", "env_steps", "updates", "episodes", "episodic_return")
"""Columns of evaluations.csv: one row per seed and evaluation during training."""

TABLES = ("metrics.csv", "evaluations.csv")


def begin(run_dir: Path, algorithm: str = "a2c") -> None:
    """Makes the tables, empty."""
    columns = METRICS + STALENESS if algorithm == "a3c" else METRICS
    (run_dir / "evaluations.csv").unlink(missing_ok=True)
    atomic_io.write(run_dir / "metrics.csv", ",".join(columns).encode() + b"\n")


def read_metrics(run_dir: Path):
    """metrics.csv as a `pandas.DataFrame`; the return is NaN where no episode ended. A last line
    that is still being written, or was cut, is left out.

    Raises:
        ValueError: there is none, or it is no such table.
    """
    import pandas as pd

    path = Path(run_dir) / "metrics.csv"
    counts = ("seed", "env_steps", "updates", "episodes")
    try:
        text = atomic_io.read(path, atomic_io.LARGEST).decode().rpartition("\n")[0]
        reader = csv.DictReader(io.StringIO(text, newline=None), strict=True)
        rows, names = list(reader), dict.fromkeys((*METRICS, *(reader.fieldnames or ())))
        for row in rows:
            if None in row or None in row.values():
                raise ValueError("a row is longer or shorter than the header")
        columns = {n: [float(row[n] or "nan") for row in rows] for n in names}  # every digit
        for name in counts:
            if not all(0 <= x < 2**53 and x.is_integer() for x in columns[name]):
                raise ValueError(f"{name} must be whole numbers")
        return pd.DataFrame(columns).astype(dict.fromkeys(counts, int))
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error})") from error


def append_metrics(run_dir: Path, rows: Iterable[Mapping]) -> None:
    """Adds rows to metrics.csv, of the columns that it has. Floats keep every digit."""
    text, rows = io.StringIO(), list(rows)
    columns = METRICS + STALENESS if rows and STALENESS[0] in rows[0] else METRICS
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    atomic_io.append(run_dir / "metrics.csv", text.getvalue())


def append_evaluations(
    run_dir: Path, seeds: list[int], env_steps: int, updates: int, returns: np.ndarray
) -> None:
    """Adds an evaluation during training to evaluations.csv: one row per seed.

    Args:
        returns: [S, N] of full episodes.
    """
    path = run_dir / "evaluations.csv"
    header = "" if path.exists() else ",".join(EVALUATIONS) + "\n"
    rows = (
        f"{seed},{env_steps},{updates},{len(row)},{row.mean()}\n"
        for seed, row in zip(seeds, returns)
    )
    atomic_io.append(path, header + "".join(rows))


def mark(run_dir: Path) -> dict:
    """What the tables hold now, put on the disk: for a checkpoint, which goes with just these
    rows."""
    marks = {}
    for name in TABLES:
        if (run_dir / name).exists():
            with atomic_io.writing(run_dir / name), atomic_io.opened(run_dir / name) as file:
                data = file.read()
                os.fsync(file.fileno())
            marks[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    atomic_io.sync_folder(run_dir)
    return marks


def check(run_dir: Path, marks: Mapping) -> None:
    """That the tables still begin with the rows that they held when they were marked.

    Raises:
        checkpoints.DamagedError: they do not.
        OSError: one cannot be read.
    """
    for name, wanted in marks.items():
        path = run_dir / name
        data = atomic_io.read(path, atomic_io.LARGEST)[: wanted["bytes"]] if path.exists() else b""
        if len(data) < wanted["bytes"] or hashlib.sha256(data).hexdigest() != wanted["sha256"]:
            raise checkpoints.DamagedError(
                f"{path} was changed or cut: it does not begin with the rows of the checkpoint"
            )


def cut(run_dir: Path, marks: Mapping) -> None:
    """Takes the tables back to where they were when they were marked."""
    for name in TABLES:
        with atomic_io.writing(run_dir / name):
            if name in marks:
                os.truncate(run_dir / name, marks[name]["bytes"])
            else:
                (run_dir / name).unlink(missing_ok=True)
