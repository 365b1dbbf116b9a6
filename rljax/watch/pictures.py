"""Pictures of environments: as they draw themselves, as gymnax draws them, or of observations."""

import contextlib
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from rljax.envs import jax_envs, render

SIZE = 320  # pixels, at the least, of a picture's longer side
COLORS = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0)),
    *((86, 180, 233), (240, 228, 66), (120, 120, 120), (160, 82, 45), (75, 0, 130)),
)
"""Of channels (Okabe and Ito's, for colour-blind readers, and three more)."""


def of_episode(env: Any, episode: Any) -> Iterable[Image.Image]:
    """One for each moment of a `play.Episode`.

    Args:
        env: the environment's id or object, as `Config.env`.
    """
    if episode.pictures[0] is not None:
        return (_scaled(picture) for picture in episode.pictures)
    if drawn := _by_gymnax(env, episode.states):
        return drawn
    if str(env).removeprefix("gymnax/") == "CartPole-v1":
        return render.cartpole(np.stack(episode.obs))
    least, most = np.min(episode.obs, axis=0), np.max(episode.obs, axis=0)
    return (of_observation(obs, least, most) for obs in episode.obs)


def of_observation(obs: np.ndarray, least: np.ndarray, most: np.ndarray) -> Image.Image:
    """An image's channels in colours, bytes as they are, vectors as bars between the least and the
    most that they reach."""
    if obs.ndim == 3:
        return _scaled(_pixels(obs))
    if obs.ndim == 2:
        return _scaled(_grey(obs, least.min(), most.max()))
    return _bars(obs.ravel(), least.ravel(), most.ravel())


def _pixels(obs):
    """[H, W, 3] bytes of an image with its channels first or last."""
    if obs.dtype == np.uint8:
        if obs.shape[0] < min(obs.shape[1:]):  # stacked frames: the newest
            newest = obs[-3:] if obs.shape[0] % 3 == 0 and obs.shape[0] > 4 else obs[-1:]
            obs = np.moveaxis(newest, 0, -1)
        return np.broadcast_to(obs[..., -3:] if obs.shape[-1] >= 3 else obs[..., -1:], _rgb(obs))
    if obs.shape[0] < min(obs.shape[1:]):
        obs = np.moveaxis(obs, 0, -1)
    if obs.shape[-1] == 3 and obs.dtype.kind == "f" and obs.min() >= 0 and obs.max() <= 1:
        return np.uint8(255 * obs)
    picture = np.full(_rgb(obs), 24, np.uint8)
    for channel in range(obs.shape[-1]):
        picture[obs[..., channel] > 0] = COLORS[channel % len(COLORS)]
    return picture


def _rgb(obs):
    return *obs.shape[:2], 3


def _grey(obs, least, most):
    span = max(float(most) - float(least), 1e-9)
    grey = np.uint8(255 * (obs.astype(float) - float(least)) / span)
    return np.repeat(grey[..., None], 3, axis=-1)


def _scaled(pixels):
    image = Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).convert("RGB")
    factor = -(-SIZE // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.NEAREST)


def _bars(vector, least, most):
    number = len(vector)
    image = Image.new("RGB", (SIZE, SIZE * 3 // 4), "white")
    pen, height = ImageDraw.Draw(image), SIZE * 3 // 4 - 20
    low, high = np.minimum(least, 0.0), np.maximum(most, 0.0)
    span = np.maximum(high - low, 1e-9)
    width = SIZE / number
    for i, x in enumerate(vector):
        zero, top = (10 + height * (1 - (y - low[i]) / span[i]) for y in (0.0, float(x)))
        box = [i * width + 0.15 * width, min(zero, top), (i + 0.85) * width, max(zero, top) + 1]
        pen.rectangle(box, fill=COLORS[0] if x >= 0 else COLORS[1])
        pen.line([(i * width, zero), ((i + 1) * width, zero)], fill="#999999")
    return image


def _by_gymnax(env, states):
    """As gymnax draws its environments, by gymnasium's of the same name or by its own visualiser;
    None where it knows no such environment, or cannot draw it here."""
    name = str(env).removeprefix("gymnax/")
    own = [_own_state(state) for state in states]
    if own[0] is None or not isinstance(env, str):
        return None
    jax_envs.import_gymnax()
    import gymnax
    from gymnax.visualize import vis_gym

    try:
        source, params = gymnax.make(name)
        if name in vis_gym.SUPPORTED_GYM_ENVS:
            return _by_gymnasium(name, own, params)
        return _by_visualizer(source, params, own)
    except Exception:  # it lacks pygame, or there is no such environment
        return None


def _by_gymnasium(name, states, params):
    """One environment for all pictures, of which gymnax would make one each."""
    import gymnasium
    from gymnax.visualize import vis_gym

    drawing = gymnasium.make(name, render_mode="rgb_array")
    try:
        drawing.reset()
        vis_gym.set_gym_params(drawing.unwrapped, name, params)
        images = []
        for state in states:
            drawing.unwrapped.state = vis_gym.get_gym_state(state, name)
            if name == "Pendulum-v1":
                drawing.unwrapped.last_u = np.asarray(state.last_u, float)
            images.append(Image.fromarray(drawing.render()))
        return images
    finally:
        drawing.close()


def _by_visualizer(source, params, states):
    import matplotlib.pyplot as plt
    from gymnax.visualize import Visualizer

    with plt.rc_context({"figure.dpi": 72}), contextlib.redirect_stdout(io.StringIO()):
        drawing = Visualizer(source, params, states)
        try:
            drawing.init()
            images = []
            for i in range(len(states)):
                drawing.update(i)
                drawing.ax.set_title("")
                drawing.fig.canvas.draw()
                pixels = np.asarray(drawing.fig.canvas.buffer_rgba())
                images.append(Image.fromarray(pixels).convert("RGB"))
            return images
        finally:
            plt.close(drawing.fig)


def _own_state(state):
    """A gymnax environment's own state, within those of wrappers; None if there is none."""
    while state is not None and hasattr(state, "env_state"):
        state = state.env_state
    return state if hasattr(state, "time") else None
