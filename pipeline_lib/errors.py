"""The errors a user is meant to read, one line each."""

import difflib
from collections.abc import Iterable


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
