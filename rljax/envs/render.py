"""Images: CartPole's, GIFs of them, and the displays that drawing needs."""

import io
import os
import sys
from collections.abc import Iterable

import numpy as np

WIDTH, HEIGHT, SMOOTH = 420, 180, 3
"""Pixels of an image; it is drawn SMOOTH times as large and scaled down."""
_DISPLAYS = "DISPLAY", "WAYLAND_DISPLAY"


def cartpole(observations: np.ndarray) -> list:
    """T Pillow images of observations [T, 4]: position and velocity of the cart, angle and angular
    velocity of the pole."""
    return [_cartpole(position, angle) for position, _, angle, _ in np.asarray(observations)]


def check_display(env: str, render_mode: str | None) -> None:
    """Raises a ValueError if an environment would open a window, and there is no display."""
    if render_mode == "human" and not has_display():
        why = f"needs a display: {' and '.join(_DISPLAYS)} are not set"
        raise ValueError(f"env = {env!r}: render_mode = 'human' {why}")


def without_devices() -> None:
    """From here on whatever draws looks for no loudspeakers and, where there is no display, for
    none: pygame complains, and MuJoCo fails."""
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    if not has_display():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        os.environ.setdefault("MUJOCO_GL", "egl")


def has_display() -> bool:
    """Whether a window could be opened."""
    return sys.platform != "linux" or any(map(os.environ.get, _DISPLAYS))


def gif(images: Iterable, frames_per_second: float = 50.0) -> bytes:
    """The images as an animated GIF that repeats. Browsers slow down what has more than 50 a
    second."""
    file = io.BytesIO()
    settings = dict(duration=1000 / frames_per_second, loop=0, optimize=True)
    few_colors = (image.quantize(32, dither=0) for image in images)
    next(few_colors).save(file, "GIF", save_all=True, append_images=few_colors, **settings)
    return file.getvalue()


def _cartpole(position, angle):
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH * SMOOTH, HEIGHT * SMOOTH), "white")
    pen = ImageDraw.Draw(image)
    scale = SMOOTH * WIDTH / 4.8  # the track is 4.8 units long
    ground = SMOOTH * HEIGHT * 0.82
    x, axle = SMOOTH * WIDTH / 2 + position * scale, ground - 0.16 * scale
    tip = x + scale * np.sin(angle), axle - scale * np.cos(angle)
    pen.line([(0, ground), (SMOOTH * WIDTH, ground)], fill="#999999", width=SMOOTH)
    pen.rectangle([x - 0.25 * scale, axle, x + 0.25 * scale, ground - SMOOTH], fill="#333333")
    pen.line([(x, axle), tip], fill="#D55E00", width=int(0.09 * scale))
    for centre, radius, color in ((tip, 0.045, "#D55E00"), ((x, axle), 0.06, "#0072B2")):
        size = radius * scale
        box = [centre[0] - size, centre[1] - size, centre[0] + size, centre[1] + size]
        pen.ellipse(box, fill=color)
    return image.resize((WIDTH, HEIGHT), Image.LANCZOS)
