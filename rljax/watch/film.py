"""Pictures as a GIF, or as an MP4 (extra `video`)."""

from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from rljax.envs import render
from rljax.utils import atomic_io

FPS = 30.0  # pictures in a second
ENDINGS = (".gif", ".mp4")


def check(path: Path) -> None:
    """Raises ValueError if a film cannot be written to this path."""
    if path.suffix not in ENDINGS:
        raise ValueError(f"output = {str(path)!r}: must end in {' or '.join(ENDINGS)}")
    if path.suffix == ".mp4" and util.find_spec("imageio_ffmpeg") is None:
        how = 'pip install -e ".[video]"'
        raise ValueError(f"output = {str(path)!r}: the package imageio-ffmpeg is missing: {how}")


def write(path: Path, images: Sequence[Any], frames_per_second: float) -> None:
    """Writes Pillow images, whole or not at all; raises as `check` does, and WriteError."""
    check(path)
    if path.suffix == ".gif":
        atomic_io.write(path, render.gif(images, frames_per_second))
        return
    import imageio_ffmpeg

    width, height = (side - side % 2 for side in images[0].size)  # as the codec wants them
    unfinished = path.with_name(f".{path.name}.unfinished.mp4")
    try:
        file = imageio_ffmpeg.write_frames(
            str(unfinished), (width, height), fps=frames_per_second, macro_block_size=2
        )
        file.send(None)
        for image in images:
            file.send(np.ascontiguousarray(np.asarray(image)[:height, :width]))
        file.close()
        atomic_io.write(path, unfinished.read_bytes())
    finally:
        unfinished.unlink(missing_ok=True)
