"""TensorBoard, by tensorboardX: one folder of events for each seed, in the run's `tensorboard/`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

from rljax.loggers.trackers import tags
from rljax.loggers.trackers.media import media

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
        for name, path in media(self.folder.parent).items():
            writer.file_writer.add_summary(_image(name, path), env_steps)


def _image(name, path):
    """As it is in its file: a GIF moves."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
    encoded = path.read_bytes()
    kind = dict(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    return Summary(value=[Summary.Value(tag=name, image=Summary.Image(**kind))])


def _hparam(x: Any) -> Any:
    return x if isinstance(x, bool | int | float | str) else str(x)
