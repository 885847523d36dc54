"""Units of signals as options give them, for files that do not say what they hold."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.signal_units import keep_units

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class SignalUnits:
    """The option that says what signals were measured in."""

    signal_units: dict[str, str] = field(default_factory=dict)
    """Units of signals, for the axes of figures: of all columns of a signal or of one, such as
    `{running: cm/s, wheel.velocity: rad/s}`. They go before what the file says."""


def give_units(signals: "dict[str, pd.DataFrame]", options: SignalUnits, where: Path | str) -> None:
    """Let the signals know the units that `options` give. InputError for a signal or column that is not there.

    >>> import pandas as pd
    >>> hand = pd.DataFrame({"time": [0.0], "x": [1.0], "angle": [2.0]})
    >>> give_units({"hand": hand}, SignalUnits(signal_units={"hand": "mm", "hand.angle": "deg"}), "day1")
    >>> hand.attrs["units"]
    {'x': 'mm', 'angle': 'deg'}
    """
    whole = {name: (name, [str(column) for column in table if column != "time"]) for name, table in signals.items()}
    places = {f"{name}.{column}": (name, [column]) for name, columns in whole.values() for column in columns} | whole
    for given in sorted(options.signal_units):  # a signal before its columns, which have the last word
        if given not in places:
            accepted = suggest(given, list(places)) if places else "a session with signals"
            raise InputError(where, "option signal_units", f"no signal {given!r}", accepted)
        name, columns = places[given]
        keep_units(signals[name], dict.fromkeys(columns, options.signal_units[given]))
