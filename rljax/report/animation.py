"""A run's agent in an episode, as a GIF in the page."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from rljax.report.html import Element, folded, tag
from rljax.report.parts import number
from rljax.runs.run import load
from rljax.utils.errors import TrainingError

MOST_STEPS = 500  # of the episode
_MOST_PICTURES = 250


def shown(run_dir: Any, greedy: bool, most_bytes: int) -> list[Element]:
    """The first of the episodes of a fresh evaluation, of the first seed."""
    head = tag("h3", "The agent")
    try:
        loaded = load(run_dir)
        images, returns = loaded.pictures(greedy=greedy, max_steps=MOST_STEPS)
    except (ValueError, TypeError, TrainingError) as error:
        return [head, tag("p", f"Not drawn: {error}", class_="soft")]
    still = io.BytesIO()
    images[0].save(still, "PNG", optimize=True)
    film = _small_gif(images, most_bytes)
    moving, still = (base64.b64encode(x).decode() for x in (film, still.getvalue()))
    steps, how = len(images) - 1, "greedy" if greedy else "sampled"
    what = f"seed {loaded.seeds[0]}, {how}: {steps:,} steps, return {number(returns[0])}"
    what += ", the rest is cut" if steps == MOST_STEPS else ""
    width, height = images[0].size
    image = tag("img", src=f"data:image/gif;base64,{moving}", alt=what, width=width, height=height)
    calm = tag(
        "source", srcset=f"data:image/png;base64,{still}", media="(prefers-reduced-motion: reduce)"
    )
    figure = tag("figure", tag("picture", calm, image), tag("p", what, class_="soft"))
    return [head, folded("An episode", figure, is_open=True)]


def _small_gif(images: Sequence[Any], most_bytes: int) -> bytes:
    """A GIF of at most this size: of fewer pictures, then of smaller ones, where it must be."""
    from rljax.envs import render

    every, duration = -(-len(images) // _MOST_PICTURES), len(images) / 30
    while True:
        chosen = [*images[::every]]
        if (len(images) - 1) % every:
            chosen.append(images[-1])
        film = render.gif(chosen, max(1.0, len(chosen) / duration))
        if len(film) <= most_bytes or len(chosen) < 4:
            return film
        if len(chosen) > 60:
            every *= 2
        else:
            images = [x.resize((x.width // 2, x.height // 2)) for x in images]
