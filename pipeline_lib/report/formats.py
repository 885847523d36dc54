"""Numbers and names as the page shows them."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` decimals and a true minus sign; a dash where there is none.

    >>> number(1234.5678), number(-0.0001), number(None)
    ('1,234.568', '0.000', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "\u2212")  # + 0.0: what rounds to 0 has no sign


def count(value: float | None) -> str:
    """A whole number with thin spaces between thousands."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """Seconds as a person says them.

    >>> duration(8.2), duration(200), duration(7500)
    ('8.2 s', '3 min 20 s', '2 h 5 min')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def link(path: Path, folder: Path) -> str:
    """A URL of `path` relative to the `folder` that the page lies in."""
    return quote(Path(os.path.relpath(path.resolve(), folder)).as_posix())


FILTERS: dict[str, Callable[..., Any]] = {"number": number, "count": count, "duration": duration, "link": link}
