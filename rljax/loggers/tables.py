"""The tables of a run, which grow by whole rows: metrics.csv and evaluations.csv."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rljax.utils import atomic_io, verified

_LOSSES = ("loss", "policy_loss", "value_loss", "entropy", "explained_variance")
"""Metrics of a loss that stand first, in this order; others follow by name."""
_FIRST = (
    *("seed", "env_steps", "updates", "wall_seconds", "episodes"),
    *("episodic_return", "episodic_length"),
)
_LAST = ("grad_norm", "learning_rate", "steps_per_second")
_EXTRA = ("staleness_mean", "staleness_max")
"""Metrics of an algorithm's own that stand first; others follow by name."""
METRICS = (*_FIRST, *_LOSSES, *_LAST)
"""Columns of metrics.csv, with the loss that is the default: one row per seed and log point."""
EVALUATIONS = ("seed", "env_steps", "updates", "episodes", "episodic_return")
"""Columns of evaluations.csv: one row per seed and evaluation during training."""
TABLES = ("metrics.csv", "evaluations.csv")
_COUNTS = ("seed", "env_steps", "updates", "episodes")


def means(metrics: Any) -> dict[str, Any]:
    """Of a `types.Metrics` the means over a row, by the names of their columns and in their order,
    without those of the algorithm's own."""
    return {
        "episodic_return": metrics.episodic_return,
        "episodic_length": metrics.episodic_length,
        **_ordered(metrics.losses, _LOSSES),
        "grad_norm": metrics.grad_norm,
    }


def metrics_rows(
    metrics: Any, which: Sequence[int], seeds: Sequence[int], batch_size: int, **speed: float
) -> list[dict]:
    """Rows of metrics.csv.

    Args:
        metrics: `types.Metrics` [S].
        which: indices of the seeds that have a row.
        seeds: [S].
        batch_size: environment steps of an update.
        speed: "wall_seconds" and "steps_per_second".
    """
    columns = {**means(metrics), "learning_rate": metrics.learning_rate}
    extra = _ordered(metrics.extra, _EXTRA)
    return [
        {
            "seed": seeds[i],
            "env_steps": int(metrics.updates[i]) * batch_size,
            "updates": metrics.updates[i],
            "wall_seconds": speed["wall_seconds"],
            "episodes": int(metrics.episodes[i]),
            **{name: x[i] for name, x in columns.items()},
            "steps_per_second": speed["steps_per_second"],
            **{name: x[i] for name, x in extra.items()},
        }
        for i in which
    ]


def _ordered(values, first):
    """A dict in an order: what is `first`, then the others by name."""
    return {
        name: values[name] for name in (*first, *sorted(set(values) - {*first})) if name in values
    }


def metrics_text(rows: Iterable[Mapping], columns: Sequence[str]) -> str:
    """Rows as CSV, without a header. Floats keep every digit; a return of no episodes is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    for row in rows:
        row = {name: str(x) for name, x in row.items()}
        row["wall_seconds"] = f"{float(row['wall_seconds']):.3f}"
        row["steps_per_second"] = f"{float(row['steps_per_second']):.0f}"
        if row["episodes"] == "0":
            row["episodic_return"] = row["episodic_length"] = ""
        writer.writerow(row)
    return text.getvalue()


def append_metrics(run_dir: Path, rows: Sequence[Mapping]) -> None:
    """Adds rows to metrics.csv, of the columns that it has; to an empty one a header first."""
    path = run_dir / "metrics.csv"
    with atomic_io.opened(path) as file:
        header = file.readline().decode()
    columns = header.strip().split(",") if header else [*rows[0]]
    begin = "" if header else ",".join(columns) + "\n"
    atomic_io.append(path, begin + metrics_text(rows, columns))


def read_metrics(run_dir: Path):
    """metrics.csv as a `pandas.DataFrame`; the return is NaN where no episode ended. A last line
    that is still being written, or was cut, is left out.

    Raises:
        ValueError: there is none, or it is no such table.
    """
    path = Path(run_dir) / "metrics.csv"
    try:
        return parse_metrics(atomic_io.read(path, atomic_io.LARGEST).decode())
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} is damaged ({error})") from error


def parse_metrics(text: str):
    """The text of a metrics.csv, as `read_metrics` gives it.

    Raises:
        ValueError, KeyError, TypeError, csv.Error: it is no such table.
    """
    import pandas as pd

    text = text.rpartition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=None), strict=True)
    rows, header = list(reader), reader.fieldnames
    names = dict.fromkeys((*header, *_FIRST, *_LAST)) if header else METRICS
    for row in rows:
        if None in row or None in row.values():
            raise ValueError("a row is longer or shorter than the header")
    columns = {n: [float(row[n] or "nan") for row in rows] for n in names}  # every digit
    for name in _COUNTS:
        if not all(0 <= x < 2**53 and x.is_integer() for x in columns[name]):
            raise ValueError(f"{name} must be whole numbers")
    return pd.DataFrame(columns).astype(dict.fromkeys(_COUNTS, int))


def append_evaluations(run_dir: Path, rows: Iterable[tuple[int, int, int, np.ndarray]]) -> None:
    """Adds an evaluation during training to evaluations.csv.

    Args:
        rows: of each seed (seed, environment steps, updates, returns of N full episodes).
    """
    path = run_dir / "evaluations.csv"
    header = "" if path.exists() else ",".join(EVALUATIONS) + "\n"
    lines = (
        f"{seed},{env_steps},{updates},{len(returns)},{returns.mean()}\n"
        for seed, env_steps, updates, returns in rows
    )
    atomic_io.append(path, header + "".join(lines))


def mark(run_dir: Path) -> dict:
    """What the tables hold now, written to the disk: for a checkpoint, to which just these rows
    belong."""
    marks = {}
    for name in TABLES:
        if (run_dir / name).exists():
            with atomic_io.writing(run_dir / name), atomic_io.opened(run_dir / name) as file:
                data = file.read()
                os.fsync(file.fileno())
            marks[name] = verified.mark(data)
    atomic_io.sync_folder(run_dir)
    return marks


def check(run_dir: Path, marks: Mapping) -> None:
    """That the tables still begin with the rows that they held when they were marked.

    Raises:
        DamagedError: they do not.
        OSError: one cannot be read.
    """
    for name, wanted in marks.items():
        path = run_dir / name
        data = atomic_io.read(path, atomic_io.LARGEST) if path.exists() else b""
        if verified.mark(data[: wanted["bytes"]]) != wanted:
            raise verified.DamagedError(
                f"{path} was changed or cut: it does not begin with the rows of the checkpoint"
            )


def cut(run_dir: Path, marks: Mapping) -> None:
    """Cuts the tables back to where they were marked."""
    for name in TABLES:
        with atomic_io.writing(run_dir / name):
            if name in marks:
                os.truncate(run_dir / name, marks[name]["bytes"])
            else:
                (run_dir / name).unlink(missing_ok=True)
