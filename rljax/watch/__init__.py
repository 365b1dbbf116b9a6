"""An agent in motion: episodes as pictures, GIFs and films.

play       episodes of an evaluation, with all that there is to see
pictures   of environments: their own, gymnax's, or of observations
panel      what the agent thinks, below the picture
film       GIF and MP4
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL.Image import Image

from rljax.watch import panel, pictures
from rljax.watch.film import FPS, write
from rljax.watch.play import Episode, episodes

MOST_STEPS = 1_000
"""Of an episode that is drawn in training: each takes about a megabyte."""

__all__ = ["FPS", "MOST_STEPS", "Episode", "drawn", "episodes", "write"]


def drawn(env: Any, played: Sequence[Episode], bare: bool = False) -> Iterator[Image]:
    """Pillow images of episodes, one for each moment, drawn one by one.

    Args:
        env: the environment, as `Config.env`.
        bare: without what the agent thinks.
    """
    for number, episode in enumerate(played, 1):
        for step, image in enumerate(pictures.of_episode(env, episode)):
            yield image if bare else _with_thoughts(image, number, step, episode)


def _with_thoughts(image, number, step, episode):
    distribution = episode.distributions[step]
    likely = None
    if hasattr(distribution, "logits"):
        likely = int(np.argmax(np.asarray(distribution.logits).reshape(-1)))
    text = f"episode {number} · step {step:,} · return {episode.returns[step]:,.2f}"
    return panel.below(image, text, distribution, episode.values[step], likely)
