"""TensorBoard, by tensorboardX: one folder of events for each seed, in the run's `tensorboard/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from rljax.loggers.trackers import tags

FLUSH_SECONDS = 5


class TensorBoard:
    """A run that is resumed is written anew, whole."""

    def begin(self, record: Mapping) -> None:
        if record["run_dir"] is None:
            raise ValueError("needs a run_dir, in which its files are")
        self.folder, self.started = Path(record["run_dir"]) / "tensorboard", record["started"]
        settings = {n: _hparam(x) for n, x in record["config"].items() if x is not None}
        self.hparams = settings | {"algorithm": str(record.get("algorithm"))}
        part = record.get("part", "")
        self.writers = {seed: self._writer(f"{part}seed_{seed}") for seed in record["seeds"]}

    def _writer(self, name):
        folder = self.folder / name
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        return SummaryWriter(str(folder), flush_secs=FLUSH_SECONDS)

    def write(self, row: Mapping) -> None:
        writer, at = self.writers[row["seed"]], row["env_steps"]
        wall = self.started + row["wall_seconds"] if "wall_seconds" in row else None
        for tag, x in tags.of(row).items():
            writer.add_scalar(tag, x, at, wall)

    def end(self, summary: Mapping) -> None:
        metrics = dict.fromkeys(["eval/final_return"] if summary.get("final_return") else [])
        for seed, writer in self.writers.items():
            for event in hparams({**self.hparams, "seed": seed}, metrics):
                writer.file_writer.add_summary(event)
        self._add_media(next(iter(self.writers.values())), summary["env_steps"])
        for writer in self.writers.values():
            writer.close()

    def _add_media(self, writer, env_steps):
        for path in media(self.folder.parent):
            writer.add_image(path.stem, _pixels(path), env_steps, dataformats="HWC")


def media(run_dir: Path) -> list[Path]:
    """The pictures of a run, for trackers."""
    return [path for path in [run_dir / "learning_curve.png"] if path.exists()]


def _pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def _hparam(x: Any) -> Any:
    return x if isinstance(x, bool | int | float | str) else str(x)
