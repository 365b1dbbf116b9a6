"""The tables of a run, which grow by whole rows: metrics.csv and evaluations.csv."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.utils import atomic_io, errors, verified

# Of a loss, and of an algorithm's own metrics, these stand first; others follow by name.
_LOSSES = ("loss", "policy_loss", "value_loss", "entropy", "explained_variance")
_EXTRA = ("staleness_mean", "staleness_max")
_COUNTS = ("seed", "env_steps", "updates", "episodes")
_OF_EPISODES = ("episodic_return", "episodic_length")
_FIRST = (*_COUNTS[:3], "wall_seconds", "episodes", *_OF_EPISODES)
_LAST = ("grad_norm", "learning_rate", "steps_per_second")
METRICS = (*_FIRST, *_LOSSES, *_LAST)
"""Columns of metrics.csv, with the loss that is the default: one row per seed and log point."""
EVALUATIONS = ("seed", "env_steps", "updates", "episodes", "episodic_return")
"""Columns of evaluations.csv: one row per seed and evaluation during training."""
TABLES = ("metrics.csv", "evaluations.csv")


def means(metrics: Any, log_info: Sequence[str] = ()) -> dict[str, Any]:
    """The means over a row in a `types.Metrics`, by column; without the algorithm's own."""
    return {
        "episodic_return": metrics.episodic_return,
        "episodic_length": metrics.episodic_length,
        **{name: metrics.info[..., i] for i, name in enumerate(info_columns(log_info))},
        **_ordered(metrics.losses, _LOSSES),
        "grad_norm": metrics.grad_norm,
    }


def info_columns(log_info: Sequence[str]) -> list[str]:
    """The columns of `Config.log_info`. No other column has a slash."""
    return [f"info/{name}" for name in log_info]


def metrics_rows(
    metrics: Any,
    which: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
    wall_seconds: float,
    steps_per_second: float,
    log_info: Sequence[str] = (),
) -> list[dict]:
    """Rows of metrics.csv, of the seeds with the indices `which`.

    Args:
        metrics: `types.Metrics` [S], of these seeds [S].
        batch_size: environment steps of an update.
        log_info: the names of `Config.log_info`.
    """
    columns = {**means(metrics, log_info), "learning_rate": metrics.learning_rate}
    extra = _ordered(metrics.extra, _EXTRA)
    return [
        {
            "seed": seeds[i],
            "env_steps": int(metrics.updates[i]) * batch_size,
            "updates": metrics.updates[i],
            "wall_seconds": round(wall_seconds, 3),
            "episodes": int(metrics.episodes[i]),
            **{name: x[i] for name, x in columns.items()},
            "steps_per_second": round(steps_per_second),
            **{name: x[i] for name, x in extra.items()},
        }
        for i in which
    ]


def _ordered(values, first):
    """A dict in order: the names in `first`, then the others by name."""
    names = (*first, *sorted(set(values) - {*first}))
    return {name: values[name] for name in names if name in values}


def metrics_text(rows: Sequence[Mapping], header: str) -> str:
    """Rows as CSV, with the columns of a table's header; for an empty table with a header first.
    Floats keep every digit; what is of no episodes is empty."""
    columns = header.strip().split(",") if header else [*rows[0]]
    text = io.StringIO()
    text.write("" if header else ",".join(columns) + "\n")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    for row in rows:
        row = {name: str(x) for name, x in row.items()}
        row["wall_seconds"] = f"{float(row['wall_seconds']):.3f}"
        row["steps_per_second"] = f"{float(row['steps_per_second']):.0f}"
        if row["episodes"] == "0":
            row |= {n: "" for n in row if n in _OF_EPISODES or n.startswith("info/")}
        writer.writerow(row)
    return text.getvalue()


def append_metrics(run_dir: Path, rows: Sequence[Mapping]) -> None:
    """Adds rows to metrics.csv."""
    path = run_dir / "metrics.csv"
    with atomic_io.opened(path) as file:
        header = file.readline().decode()
    atomic_io.append(path, metrics_text(rows, header))


def read_metrics(run_dir: Path):
    """metrics.csv as a `pandas.DataFrame`; the return is NaN where no episode ended. Leaves out an
    incomplete last line; raises ValueError if there is no such table."""
    return _read(Path(run_dir) / "metrics.csv", parse_metrics)


def _read(path, parse):
    """A table, of whose text something is made; whatever is wrong is a ValueError."""
    try:
        return parse(atomic_io.read(path, atomic_io.LARGEST).decode())
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read ({error.strerror})") from error
    except (csv.Error, *errors.WRONG) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} is damaged ({why})") from error


def parse_metrics(text: str):
    """`read_metrics` from text; raises ValueError, KeyError, TypeError or csv.Error."""
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


def append_evaluations(
    run_dir: Path, rows: Iterable[tuple[Any, ...]], log_info: Sequence[str] = ()
) -> None:
    """Adds an evaluation during training to evaluations.csv: for each seed (seed, environment
    steps, updates, returns of N full episodes, the means of the numbers of `log_info`, if any)."""
    path = run_dir / "evaluations.csv"
    header = ",".join((*EVALUATIONS, *info_columns(log_info))) + "\n"
    lines = (
        f"{seed},{env_steps},{updates},{len(returns)},{returns.mean()}" + _joined(info)
        for seed, env_steps, updates, returns, *info in rows
    )
    atomic_io.append(path, header * (not path.exists()) + "".join(lines))


def evaluation_rows(rows: Iterable[tuple[Any, ...]], log_info: Sequence[str] = ()) -> list[dict]:
    """An evaluation, as `append_evaluations` takes it, as rows for loggers."""
    names = [f"eval/{name}" for name in ("episodes", "episodic_return", *info_columns(log_info))]
    return [
        {
            "seed": seed,
            "env_steps": env_steps,
            **dict(zip(names, (len(returns), returns.mean(), *info))),
        }
        for seed, env_steps, _, returns, *info in rows
    ]


def final_rows(summary: Mapping) -> list[dict]:
    """The final evaluation of a summary as rows for loggers."""
    final, at = summary.get("final_return") or {}, summary["env_steps"]
    returns = zip(summary["seeds"], final.get("per_seed", ()))
    return [{"seed": seed, "env_steps": at, "eval/final_return": x} for seed, x in returns]


def logged(run_dir: Path) -> list[dict]:
    """All rows of a run's tables as loggers were given them; raises ValueError as `read_metrics`
    does."""
    rows = [*read_metrics(run_dir).to_dict("records"), *read_evaluations(run_dir)]
    return sorted(rows, key=lambda row: row["env_steps"])


def read_evaluations(run_dir: Path) -> list[dict]:
    """The rows of evaluations.csv, without an incomplete last line, as loggers were given them;
    none if there is no such table. Raises ValueError if it is damaged."""
    path = Path(run_dir) / "evaluations.csv"
    return _read(path, _parse_evaluations) if path.exists() else []


def _parse_evaluations(text):
    lines = io.StringIO(text.rpartition("\n")[0], newline=None)
    return [_evaluation(row) for row in csv.DictReader(lines, strict=True)]


def _evaluation(row):
    if None in row or None in row.values():
        raise ValueError("a row is longer or shorter than the header")
    of_episodes = {f"eval/{name}": float(x) for name, x in [*row.items()][3:]}
    if "eval/episodic_return" not in of_episodes:
        raise ValueError("it has no column episodic_return")
    return {**{n: int(row[n]) for n in ("seed", "env_steps")}, **of_episodes}


def _joined(info):
    return "".join(f",{x}" for x in info) + "\n"


def mark(run_dir: Path) -> dict:
    """The lengths and sums of the tables, which are synced to the disk: a checkpoint's rows."""
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
    """Raises DamagedError unless the tables still begin with the rows that were marked."""
    for name, wanted in marks.items():
        path = run_dir / name
        data = atomic_io.read(path, atomic_io.LARGEST) if path.exists() else b""
        if verified.mark(data[: wanted["bytes"]]) != wanted:
            why = "it does not begin with the rows of the checkpoint"
            raise verified.DamagedError(f"{path} was changed or cut: {why}")


def cut(run_dir: Path, marks: Mapping) -> None:
    """Cuts the tables back to where they were marked."""
    for name in TABLES:
        with atomic_io.writing(run_dir / name):
            if name in marks:
                os.truncate(run_dir / name, marks[name]["bytes"])
            else:
                (run_dir / name).unlink(missing_ok=True)
