"""Saves checkpoints in the background."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rljax.runs import checkpoints
from rljax.utils import atomic_io


class Saver:
    """Saves checkpoints of a run in the background, one at a time, and keeps the newest ones.

    The arrays are fetched before `save` returns; checksums and the disk are left to a thread. A
    context: leaving it waits for the last one. What went wrong is raised by the next call.
    """

    def __init__(self, run_dir: Path, keep: int):
        self.run_dir, self.keep = Path(run_dir), keep
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.under_way: Future | None = None

    def save(self, env_steps: int, trees: Mapping[str, Any], facts: Mapping) -> None:
        self.wait()
        arrays = {name: checkpoints.flatten(tree) for name, tree in trees.items()}
        self.under_way = self.thread.submit(self._write, env_steps, arrays, facts)

    def check(self) -> None:
        """Raises what has gone wrong, without waiting."""
        if self.under_way and self.under_way.done():
            self.wait()

    def wait(self) -> None:
        """Until what was given to `save` is on the disk.

        Raises:
            WriteError: it could not be written.
        """
        if self.under_way:
            under_way, self.under_way = self.under_way, None
            under_way.result()

    def _write(self, env_steps, arrays, facts):
        checkpoints.write(checkpoints.folder(self.run_dir, env_steps), arrays, facts)
        for old in checkpoints.existing(self.run_dir)[: -self.keep]:
            atomic_io.remove_folder(checkpoints.folder(self.run_dir, old))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.thread.shutdown()
