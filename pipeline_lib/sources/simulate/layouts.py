"""Simulated sessions written the way real ones are stored, so that they pass through the same readers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import InputError, suggest
from pipeline_lib.files import exclusive, whole_directory

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording

LAYOUTS = ("allen", "ibl", "tables")
"""The layouts; each has the name of the source that reads it."""


def write_layout(recording: "Recording", directory: Path | str, layout: str) -> Path:
    """Write `recording` into `directory` in a layout, its truth beside it; the same recording gives the same bytes.

    Returns the location that the source of the same name reads. What a layout cannot say is lost: an Allen file knows
    whole numbers as unit ids (others are numbered by row, in the truth as well) and no end of the session after its
    last spike, trial or gap; an IBL folder knows no gaps in the recording (read it with `observed: trials`) and no
    regions but those of the Allen CCF (one other label becomes root). Populations come back as the regions.

    Raises
    ------
    InputError : an unknown layout, or signals, regions or intervals of units that the layout has no place for.
    """
    from pipeline_lib.sources.simulate.layout_allen import write_allen
    from pipeline_lib.sources.simulate.layout_ibl import write_ibl

    writers: dict[str, Callable[[Recording, Path], Path]]
    writers = dict(zip(LAYOUTS, (write_allen, write_ibl, write_tables), strict=True))
    if layout not in writers:
        raise InputError("config", "layout", repr(layout), suggest(str(layout), list(LAYOUTS)))
    recording.validate()
    place = f"layout {layout}"
    if recording.unit_intervals is not None:
        raise InputError(place, "unit_intervals", "units that come and go", "units that were always observed")
    signals = {"allen": {"running"}, "ibl": set(), "tables": set(recording.signals)}[layout]
    for name in recording.signals:
        if name not in signals:
            raise InputError(place, f"signals/{name}", "a signal", f"no signals but {sorted(signals)}")
    directory = Path(directory)
    with exclusive(directory / ".lock"):
        return writers[layout](recording, directory)


def write_tables(recording: "Recording", directory: Path) -> Path:
    """Write what the source `tables` finds without options: spikes.parquet, {units,trials,observed}.csv and, where
    there are any, signals/*.parquet and stimulus.zarr; return the folder."""
    import pandas as pd

    with whole_directory(directory, final="spikes.parquet") as writing:
        units = recording.units["unit_id"].to_numpy()[recording.spike_units]
        spikes = pd.DataFrame({"time": recording.spike_times, "unit": pd.Categorical(units)})
        spikes.to_parquet(writing / "spikes.parquet", index=False)
        recording.units.to_csv(writing / "units.csv", index=False)
        recording.trials.to_csv(writing / "trials.csv", index=False)
        observed = pd.DataFrame(recording.observed, columns=["start", "stop"])
        observed.to_csv(writing / "observed.csv", index=False)
        for name, signal in sorted(recording.signals.items()):
            (writing / "signals").mkdir(exist_ok=True)
            signal.to_parquet(writing / "signals" / f"{name}.parquet", index=False)
        if recording.stimulus is not None:
            recording.stimulus.write(writing / "stimulus.zarr")
        if recording.truth is not None:
            recording.truth.write(writing / "truth.zarr")
    return directory
