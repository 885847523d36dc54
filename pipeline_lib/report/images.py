"""Figures made small enough to live inside a page."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTHS = (1600, 1300, 1000, 800, 640)
"""Pixels of a double-column figure, from generous to just readable."""
FULL_WIDTH = 2102
"""Pixels of a double-column figure at print resolution; narrower ones shrink in proportion."""
LEAST_BYTES = 30_000
"""About what a figure needs at the smallest width."""
QUALITY = 86


@dataclass(frozen=True)
class Image:
    """An image inside the page: its `uri`, and its size on paper in CSS pixels (1/96 inch)."""

    uri: str
    width: int
    height: int


def embed(files: Sequence[Path], budget: int) -> dict[Path, Image]:
    """Images by file, together within `budget` bytes of page.

    Each gets an equal share of what is left, and the largest of `WIDTHS` that fits into it; what it does not need goes
    to the next. Where there are too many for the budget, the last ones are left out.
    """
    chosen: dict[Path, Image] = {}
    files = list(files)[: max(budget, 0) // LEAST_BYTES]
    first = 0
    for place, file in enumerate(files):
        share = budget // (len(files) - place)
        # Shares differ little from one to the next: beginning near the last width saves most of the tries.
        for step in range(max(first - 1, 0), len(WIDTHS)):
            image = encode(file, WIDTHS[step])
            if len(image.uri) <= share:
                chosen[file], first = image, step
                budget -= len(image.uri)
                break
    return chosen


def encode(file: Path, width: int) -> Image:
    """A figure's PNG as WebP, scaled as if a double-column figure were `width` pixels wide."""
    from PIL import Image as Pillow

    with Pillow.open(file) as opened:
        picture, dpi = opened.convert("RGB"), float(opened.info.get("dpi", (300, 300))[0])
    scale = min(1.0, width / FULL_WIDTH)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    buffer = io.BytesIO()
    picture.resize(size, Pillow.Resampling.LANCZOS, reducing_gap=3).save(buffer, "WEBP", quality=QUALITY, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Image(uri, round(picture.width / dpi * 96), round(picture.height / dpi * 96))
