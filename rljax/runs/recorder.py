"""Where a run in training writes: its directory, or nowhere."""

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rljax.loggers import tables
from rljax.runs import checkpoints
from rljax.runs.saver import Saver


class Recorder:
    """Rows, checkpoints and the summary of a run. A context: leaving it waits for the last
    checkpoint."""

    def __init__(self, run_dir: Path | None, keep: int):
        """
        Args:
            run_dir: None keeps rows in memory, and nothing else.
            keep: the newest checkpoints that are kept.
        """
        self.run_dir = run_dir
        self.saver = Saver(run_dir, keep) if run_dir else None
        self.text = io.StringIO()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception):
        if self.saver:
            self.saver.__exit__(*exception)

    def add_rows(self, rows: Sequence[Mapping]) -> None:
        """Adds rows of metrics, as `tables.metrics_rows` gives them."""
        if self.run_dir:
            (self.run_dir / "summary.json").unlink(missing_ok=True)  # of a run that now continues
            tables.append_metrics(self.run_dir, rows)
        else:
            columns = list(rows[0])
            header = "" if self.text.tell() else ",".join(columns) + "\n"
            self.text.write(header + tables.metrics_text(rows, columns))

    def add_evaluations(self, rows: Sequence[tuple]) -> None:
        """Adds an evaluation, as `tables.append_evaluations` takes it."""
        if self.run_dir:
            tables.append_evaluations(self.run_dir, rows)

    def save(self, env_steps: int, trees: Mapping[str, Any], facts: Mapping) -> None:
        """Saves a checkpoint of the tables as they are now, in the background."""
        if self.saver:
            self.saver.save(env_steps, trees, {**facts, "tables": tables.mark(self.run_dir)})

    def wait(self) -> None:
        """Until the checkpoint is on the disk.

        Raises:
            WriteError: it could not be written.
        """
        if self.saver:
            self.saver.wait()

    def check(self) -> None:
        """Raises what has gone wrong with a checkpoint, without waiting."""
        if self.saver:
            self.saver.check()

    def metrics(self) -> Any:
        """All rows as a `pandas.DataFrame`."""
        if self.run_dir:
            return tables.read_metrics(self.run_dir)
        return tables.parse_metrics(self.text.getvalue())

    def discard(self) -> None:
        """Removes a new run directory in which nothing has been trained."""
        if self.run_dir and checkpoints.existing(self.run_dir) in ([], [0]):
            shutil.rmtree(self.run_dir)
