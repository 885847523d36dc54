"""What is scored beyond spikes: settings only, no heavy import (the configuration is validated with them)."""

import math
from dataclasses import dataclass
from typing import ClassVar

from pipeline_lib.errors import InputError

MEAN = "mean"
"""What stands in the place of a seed, in paths and on the command line, for rates averaged over the seeds."""
AVERAGED = f":{MEAN}"
"""What follows a model's name in the table of scores for those rates: a model of their own there, not one seed more. No
name of a configuration has a colon."""


@dataclass(frozen=True)
class Target:
    """Something outside the spikes that rates (and latents) are decoded to, by a readout fitted to the training part.

    One of `signal`, `choice` and `timing` says what. A session without it gets a score that is not a number.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    signal: str | None = None
    """A signal of the recording, bin by bin, all its dimensions: R2 of a ridge regression."""
    choice: str | None = None
    """A column of the trials table, a class a trial: balanced accuracy of a logistic regression."""
    timing: str | None = None
    """A column of the trials table, a time a trial (such as a produced interval): its correlation with how fast the
    rates change; nothing is fitted."""
    lag: float = 0.0
    """Seconds after the bin at which the signal is read: movement follows the spikes that cause it."""
    within: tuple[str, ...] = ()
    """Columns of the trials: in each combination of these the correlation with `timing` is taken, or a regression of
    its own fitted to `signal`, and averaged. A trial without a value is left out."""
    learn_validation: bool = False
    """Fit the readout to the validation part, too, as the benchmark does, which knows of none."""

    def __post_init__(self) -> None:
        given = [name for name in ("signal", "choice", "timing") if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                "evaluation", "decoding", " and ".join(given) or "nothing", "one of signal, choice, timing"
            )
        if self.within and self.choice is not None:
            raise InputError("evaluation", "within", list(self.within), "nothing, of a choice")
        if self.learn_validation and self.timing is not None:
            raise InputError("evaluation", "learn_validation", True, "nothing, of a timing: nothing is fitted")
        if self.lag and self.signal is None:
            raise InputError("evaluation", "lag", self.lag, "nothing, of a choice or a timing: one value a trial")
        if not math.isfinite(self.lag):
            raise InputError("evaluation", "lag", self.lag, "a finite number of seconds")
