"""The one kind of error a user is meant to read."""


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
        super().__init__(f"{where}: {field}: found {found}; accepted: {accepted}")

    def __reduce__(self) -> tuple:
        return type(self), (self.where, self.field, self.found, self.accepted)
