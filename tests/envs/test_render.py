"""Pictures of an agent playing."""

import io

import numpy as np
from PIL import Image

from rljax.envs import render


def red_and_blue(image):
    """Columns of the pole's tip (the uppermost orange) and of the axle (blue)."""
    pixels = np.asarray(image).astype(int)
    orange = np.argwhere(np.abs(pixels - (0xD5, 0x5E, 0x00)).sum(axis=-1) < 30)
    blue = np.argwhere(np.abs(pixels - (0x00, 0x72, 0xB2)).sum(axis=-1) < 30)
    return orange[orange[:, 0] == orange[:, 0].min(), 1].mean(), blue[:, 1].mean()


def test_the_cart_and_the_pole_are_where_they_are():
    images = render.cartpole(np.array([[0, 0, 0, 0], [1.2, 0, 0.2, 0], [-1.2, 0, -0.2, 0]]))
    upright, right, left = map(red_and_blue, images)
    np.testing.assert_allclose(upright, render.WIDTH / 2, atol=2)
    assert abs(right[1] - 0.75 * render.WIDTH) < 2  # 1.2 of 2.4 units to the right
    assert abs(left[1] - 0.25 * render.WIDTH) < 2
    assert right[0] > right[1] + 10  # leans right
    assert left[0] < left[1] - 10


def test_a_gif_has_a_frame_for_each_image():
    images = render.cartpole(np.linspace(-1, 1, 5)[:, None].repeat(4, axis=1))
    with Image.open(io.BytesIO(render.gif(images, frames_per_second=20))) as gif:
        assert gif.n_frames == 5
        assert gif.size == (render.WIDTH, render.HEIGHT)
        assert gif.info["duration"] == 50
        assert gif.info["loop"] == 0
