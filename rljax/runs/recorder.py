"""Where a run in training writes: its directory, or nowhere."""

import io
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rljax.loggers import tables
from rljax.loggers.trackers.feed import Feed
from rljax.runs import checkpoints
from rljax.utils import atomic_io


class Recorder:
    """Writes rows of metrics, and checkpoints in the background, one at a time.

    A checkpoint's arrays are fetched before `save` returns; checksums and the disk are left to a
    thread. What went wrong is raised by the next call. A context: leaving it waits for the thread.
    """

    def __init__(self, run_dir: Path | None, keep: int, feed: Feed | None = None):
        """Keeps the newest `keep` checkpoints; without a `run_dir` only rows, in memory. What is
        written into tables goes to the feed, too."""
        self.run_dir, self.keep, self.feed = run_dir, keep, feed or Feed({})
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.under_way: Future | None = None
        self.text = io.StringIO()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *exception):
        self.thread.shutdown()

    def add_rows(self, rows: Sequence[Mapping], are_whole: bool = True) -> None:
        """Adds rows of metrics, as `tables.metrics_rows` gives them. Those that a signal has cut
        short are taken back when the run is resumed, which trackers cannot do."""
        if self.run_dir:
            (self.run_dir / "summary.json").unlink(missing_ok=True)  # of a run that now continues
            tables.append_metrics(self.run_dir, rows)
        else:
            self.text.seek(0)
            header = self.text.readline()
            self.text.seek(0, io.SEEK_END)
            self.text.write(tables.metrics_text(rows, header))
        if are_whole:
            self.feed.write(rows)

    def add_evaluations(self, rows: Sequence[tuple], log_info: Sequence[str]) -> None:
        """Adds an evaluation, as `tables.append_evaluations` takes it."""
        if self.run_dir:
            tables.append_evaluations(self.run_dir, rows, log_info)
        self.feed.write(tables.evaluation_rows(rows, log_info))

    def save(self, env_steps: int, trees: Mapping[str, Any], facts: Mapping) -> None:
        """Saves a checkpoint of the tables as they are now, and removes the oldest ones."""
        if self.run_dir:
            self.wait()
            facts = {**facts, "tables": tables.mark(self.run_dir)}
            arrays = {name: checkpoints.flatten(tree) for name, tree in trees.items()}
            self.under_way = self.thread.submit(self._write, env_steps, arrays, facts)

    def _write(self, env_steps, arrays, facts):
        checkpoints.write(checkpoints.folder(self.run_dir, env_steps), arrays, facts)
        for old in checkpoints.existing(self.run_dir)[: -self.keep]:
            atomic_io.remove_folder(checkpoints.folder(self.run_dir, old))

    def wait(self) -> None:
        """Waits until the checkpoint is on the disk; raises WriteError if it cannot be written."""
        if self.under_way:
            under_way, self.under_way = self.under_way, None
            under_way.result()

    def check(self) -> None:
        """Raises what has gone wrong with a checkpoint, without waiting."""
        if self.under_way and self.under_way.done():
            self.wait()

    def metrics(self) -> Any:
        """All rows as a `pandas.DataFrame`."""
        if self.run_dir:
            return tables.read_metrics(self.run_dir)
        return tables.parse_metrics(self.text.getvalue())

    def discard(self) -> None:
        """Removes a new run directory in which nothing has been trained."""
        if self.run_dir and checkpoints.existing(self.run_dir) in ([], [0]):
            shutil.rmtree(self.run_dir)
