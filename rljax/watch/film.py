"""Pictures as a GIF, or as an MP4 (extra `video`)."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rljax.envs import render
from rljax.utils import atomic_io, imports

FPS = 30.0  # pictures in a second
ENDINGS = (".gif", ".mp4")


def check(path: Path) -> None:
    """Raises ValueError if a film cannot be written to this path."""
    if path.suffix not in ENDINGS:
        raise ValueError(f"output = {str(path)!r}: must end in {' or '.join(ENDINGS)}")
    if path.suffix == ".mp4":
        what = f"output = {str(path)!r}"
        imports.check_installed(what, "video", "imageio_ffmpeg", name="imageio-ffmpeg")


def write(path: Path, images: Iterable[Any], frames_per_second: float) -> int:
    """Writes Pillow images, whole or not at all; returns their number. Raises as `check` does, and
    WriteError."""
    check(path)
    number = itertools.count()
    counted = (image for image, _ in zip(images, number))
    if path.suffix == ".gif":
        atomic_io.write(path, render.gif(counted, frames_per_second))
    else:
        _write_mp4(path, counted, frames_per_second)
    return next(number)


def _write_mp4(path, images, frames_per_second):
    import imageio_ffmpeg

    first = next(images)
    width, height = (side - side % 2 for side in first.size)  # as the codec wants them
    unfinished = path.with_name(f".{path.name}.unfinished.mp4")
    try:
        file = imageio_ffmpeg.write_frames(
            str(unfinished), (width, height), fps=frames_per_second, macro_block_size=2
        )
        file.send(None)
        for image in itertools.chain([first], images):
            file.send(np.ascontiguousarray(np.asarray(image)[:height, :width]))
        file.close()
        atomic_io.write(path, unfinished.read_bytes())
    finally:
        unfinished.unlink(missing_ok=True)
