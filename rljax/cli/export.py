"""The command line that writes the tables of runs and sweeps to a tracker."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from rljax.cli import fail, flags, run_script
from rljax.loggers import tables, trackers
from rljax.runs import directory
from rljax.runs.run import read_summary
from rljax.utils import errors
from rljax.utils.atomic_io import WriteError


@dataclasses.dataclass(frozen=True)
class Options:
    run_dirs: tyro.conf.Positional[tuple[Path, ...]]
    """The runs and sweeps."""
    to: Literal[tuple(trackers.TRACKERS)]
    """The tracker."""


class Told(NamedTuple):
    """What a logger is given of a run, or of a trial of a sweep."""

    record: dict
    rows: list[dict]
    summary: dict


def main(doc: str, argv: list[str] | None = None) -> int:
    """Writes; returns the exit status."""

    def run(argv, signals, stack):
        try:
            options = flags.parse_options(Options, doc.splitlines()[0], argv)
            flags.check_run_dirs(options.run_dirs)
            trackers.make([options.to], "to")
            for run_dir in options.run_dirs:
                directory.read_record(run_dir)
                stack.enter_context(directory.lock(run_dir))
            told = {run_dir: [*_told(run_dir)] for run_dir in options.run_dirs}
        except (ValueError, TypeError, WriteError) as error:
            return fail(error)
        for run_dir, all_of_it in told.items():
            try:
                number = sum(_write(one, options.to) for one in all_of_it)
            except Exception as error:
                return fail(ValueError(f"{options.to}: {errors.in_a_line(error)}"))
            print(f"{run_dir}: {number:,} rows written to {options.to}")
        return 0

    return run_script(run, argv)


def _write(told, name):
    (logger,) = trackers.make([name], "to").values()
    logger.begin(told.record)
    for row in told.rows:
        logger.write(row)
    logger.end(told.summary)
    return len(told.rows)


def _told(run_dir: Path) -> Iterator[Told]:
    """Of a run, or of each trial of a sweep; raises ValueError as `directory.read_record` and the
    readers of tables do."""
    record = directory.read_record(run_dir)
    if "points" in record:
        yield from _trials(run_dir, record)
        return
    rows = tables.logged(run_dir)
    unfinished = {"seeds": sorted({row["seed"] for row in rows}), "status": "unfinished"}
    unfinished["env_steps"] = max((row["env_steps"] for row in rows), default=0)
    summary = unfinished | read_summary(run_dir)
    rows += tables.final_rows(summary)
    seeds, last = summary["seeds"], max((row.get("wall_seconds", 0.0) for row in rows), default=0.0)
    started = (run_dir / "metrics.csv").stat().st_mtime - last
    yield Told(trackers.described(record, run_dir, seeds, started), rows, summary)


def _trials(run_dir: Path, record: Mapping) -> Iterator[Told]:
    from rljax.sweep import results

    table = results.read(run_dir)
    columns = [*table]
    settings = columns[3 : columns.index("env_steps")]
    logged = columns[columns.index("env_steps") :]
    started = (run_dir / "results.csv").stat().st_mtime
    for (trial, seed), rows in table.groupby(["trial", "seed"]):
        own = {name: _plain(rows[name].iloc[0]) for name in settings}
        named = trackers.described(record, run_dir, [int(seed)], started)
        named |= {
            "config": {**record["config"], **own},
            "id": f"{named['id']}-{trial}",
            "name": f"{named['name']} trial {trial}",
            "part": f"trial_{trial}_",
        }
        rows = [_row(row, int(seed)) for row in rows[logged].to_dict("records")]
        final = rows[-1].get("eval/episodic_return")
        summary = {"seeds": [int(seed)], "env_steps": rows[-1]["env_steps"], "status": "completed"}
        if final is not None:
            summary["final_return"] = {"per_seed": [final]}
        yield Told(named, rows, summary)


def _row(row, seed):
    """A row of results.csv as one of metrics.csv; `eval_return` is NaN but for the last."""
    final, _ = row.pop("eval_return"), row.pop("diverged")
    known = {} if final != final else {"eval/episodic_return": final}
    return {"seed": seed, **row, **known}


def _plain(x: Any) -> Any:
    return x.item() if hasattr(x, "item") else x
