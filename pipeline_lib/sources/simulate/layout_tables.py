"""A session as a user's own tables: spikes.parquet, {units,trials,observed}.csv, signals/*.parquet, stimulus.zarr."""

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.files import whole_directory

if TYPE_CHECKING:
    from pipeline_lib.recording import Recording


def write_tables(recording: "Recording", directory: Path) -> Path:
    """Write the tables that the source `tables` finds without options; return the folder."""
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
