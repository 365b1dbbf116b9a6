"""An agent in motion: episodes as pictures, GIFs and films.

play       episodes of an evaluation, with all that there is to see
pictures   of environments: their own, gymnax's, or of observations
panel      what the agent thinks, below the picture
film       GIF and MP4
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax.watch import panel, pictures
from rljax.watch.film import FPS, write
from rljax.watch.play import Episode, episodes

__all__ = ["FPS", "Episode", "drawn", "episodes", "write"]


def drawn(env: Any, played: Sequence[Episode], bare: bool = False) -> list[list]:
    """Pillow images of episodes, one for each moment.

    Args:
        env: the environment, as `Config.env`.
        bare: without what the agent thinks.
    """
    return [_drawn(env, i, one, bare) for i, one in enumerate(played, 1)]


def _drawn(env, number, episode, bare):
    images = pictures.of_episode(env, episode)
    if bare:
        return images
    found = []
    for step, image in enumerate(images):
        distribution = episode.distributions[step]
        likely = None
        if hasattr(distribution, "logits"):
            likely = int(np.argmax(np.asarray(distribution.logits).reshape(-1)))
        text = f"episode {number} · step {step:,} · return {episode.returns[step]:,.2f}"
        found.append(panel.below(image, text, distribution, episode.values[step], likely))
    return found
