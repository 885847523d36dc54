"""Names made short enough for a figure, and still told apart."""

import itertools
import re
from collections.abc import Sequence

PART = re.compile(r"[^\W_]+|[\W_]+")
"""A word or number, or what stands between two."""
COLUMN = re.compile(r"(?:(?<=^)|(?<= ))[^\s=]+=")
"""What stands before a value in the name of a condition that several columns make."""


def shortened(name: str, length: int = 16) -> str:
    """A name of at most `length` letters, with an ellipsis for what is left out.

    Of a condition of several columns (`side=left choice=right`) the columns go before any letter: cut off at its end,
    conditions that differ in the last of them would be named alike.
    """
    if len(name) > length:
        name = COLUMN.sub("", name)
    return name if len(name) <= length else name[: length - 1] + "\u2026"


def told_apart(names: Sequence[str], length: int = 16) -> list[str]:
    """Names of at most `length` letters; where one is longer, an ellipsis is put for how all begin and end alike.

    Of `imec0.ap-12-good` and `imec0.ap-7-good` that leaves 12 and 7, which their first letters would not. Parts between
    signs stay whole: 12 and 17 do not begin alike. Names that are then still alike are told apart among themselves.
    """
    if max(map(len, names), default=0) <= length:
        return list(names)
    parts = [PART.findall(name) for name in names]
    first = _alike(parts)
    last = _alike([row[first:][::-1] for row in parts])
    inner = ["".join(row[first : len(row) - last]) for row in parts]
    short = [shortened("\u2026" * bool(first) + name + "\u2026" * bool(last), length) for name in inner]
    for label in {label for label in short if 1 < short.count(label) < len(short)}:
        alike = [place for place, each in enumerate(short) if each == label]
        for place, name in zip(alike, told_apart([names[place] for place in alike], length), strict=True):
            short[place] = name
    return short


def short_names(names: Sequence[str], length: int = 16) -> dict[str, str]:
    """Short names by name, told apart; a name alone is to be told from no other, and begins as it does."""
    short = told_apart(names, length) if len(names) > 1 else [shortened(name, length) for name in names]
    return dict(zip(names, short, strict=True))


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """How many parts all rows begin with; one at least is left of each."""
    same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))
    return min(sum(1 for _ in same), min(map(len, rows)) - 1)
