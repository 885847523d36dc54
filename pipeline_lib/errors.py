"""The errors a user is meant to read, one line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class InputError(ValueError):
    """Something the user gave is wrong. The command line prints it as one line and exits with code 2.

    Parameters
    ----------
    where : the file (or table, or option) that holds the mistake.
    field : the column, key, dataset or row in it.
    found : what stands there.
    accepted : what would be right, or what to do.
    """

    def __init__(self, where: object, field: str, found: object, accepted: str) -> None:
        self.where, self.field, self.found, self.accepted = str(where), field, found, accepted
        super().__init__(" ".join(f"{where}: {field}: found {found}; accepted: {accepted}".split("\n")))

    def __reduce__(self) -> tuple:
        return type(self), (self.where, self.field, self.found, self.accepted)


def refuse_rows(bad: np.ndarray, where: object, field: str, values: np.ndarray, accepted: str, unit: str = "") -> None:
    """Refuse a column `field` of which some rows are `bad` (rows,), bool; `values` (rows,) in `unit` stand there.

    Raises
    ------
    InputError : about the first bad row.

    Examples
    --------
    >>> import numpy as np
    >>> times = np.array([0.5, np.nan])
    >>> refuse_rows(np.isnan(times), "day1.csv", "time", times, "a finite number", unit=" s")
    Traceback (most recent call last):
        ...
    pipeline_lib.errors.InputError: day1.csv: time, row 1: found nan s; accepted: a finite number
    """
    if bad.any():
        row = int(bad.argmax())
        raise InputError(where, f"{field}, row {row}", f"{values[row]}{unit}", accepted)


class Failure(RuntimeError):
    """The work itself failed or was stopped, for a reason that one line can say; the command line prints it."""

    exit_code = 1


def suggest(name: str, names: Iterable[str]) -> str:
    """What is accepted instead of the unknown `name`: the nearest of `names`, or all of them where they are few."""
    names = [str(each) for each in names]
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    if not names:
        return "nothing: there is none"
    return "one of " + ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
