"""What the agent thinks, below a picture: action probabilities, value, step and return so far."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rljax.watch.pictures import COLORS

HEIGHT, MARGIN, WIDTH = 64, 8, 320
MOST_BARS = 32  # actions that are drawn


def below(
    picture: Image.Image, lines: str, distribution: Any, value: float | None, taken: int | None
) -> Image.Image:
    """The picture with a panel below it.

    Args:
        lines: text.
        distribution: over the next action, of one observation; None if it is not known.
        taken: the most probable action, which is marked.
    """
    width = max(WIDTH, picture.width)
    image = Image.new("RGB", (width, picture.height + HEIGHT), "white")
    image.paste(picture, ((width - picture.width) // 2, 0))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=12)
    top = picture.height + 4
    pen.text((MARGIN, top), lines, fill="black", font=font)
    if value is not None:
        text = f"value {value:,.2f}"
        pen.text((width - MARGIN, top), text, fill="black", font=font, anchor="ra")
    if distribution is not None:
        _bars(pen, distribution, taken, (MARGIN, top + 20, width - MARGIN, image.height - 4), font)
    return image


def _bars(pen, distribution, taken, box, font):
    left, top, right, bottom = box
    if hasattr(distribution, "logits"):
        shares = np.asarray(distribution.probs).reshape(-1)[:MOST_BARS]
        width = (right - left) / len(shares)
        for i, share in enumerate(shares):
            x = left + i * width
            color = COLORS[1] if i == taken else COLORS[0]
            high = top + (bottom - top - 12) * (1 - float(share))
            pen.rectangle([x + 1, high, x + width - 1, bottom - 12], fill=color)
            text = f"{i}" if width < 44 else f"{i}: {share:.0%}"
            pen.text((x + width / 2, bottom), text, fill="black", font=font, anchor="ms")
        return
    means, stds = np.asarray(distribution.mean), np.exp(np.asarray(distribution.log_std))
    shown = "  ".join(f"{m:+.2f} ± {s:.2f}" for m, s in zip(means, stds))
    pen.text((left, top), shown, fill="black", font=font)
