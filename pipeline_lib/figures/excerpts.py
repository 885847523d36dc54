"""What of a large recording a figure shows: some units, and not every bin."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.clock import TICKS_PER_SECOND, to_ticks
from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.recording import Truth
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains


def truth_of(recording: Path | str, names: Collection[str]) -> Truth:
    """Those of the named arrays that the simulator of a recording knows; nothing for a real one."""
    path = Path(recording) / "truth.zarr"
    return Truth.read(path, names) if path.is_dir() else Truth({}, {})


def unit_ids(recording: Path | str) -> np.ndarray:
    """What the source of a recording calls its units, text [N]."""
    units = pd.read_parquet(Path(recording) / "units.parquet", columns=["unit_id"])
    return units["unit_id"].to_numpy(str)


def tested_windows(split: Split, session: str) -> pd.DataFrame:
    """The windows of a session in the test part; NothingToDrawError where there are none."""
    windows = split.part(session, "test")
    if len(windows) == 0:
        raise NothingToDrawError(f"Session {session} has no window in the test part.")
    return windows


def describe_units(trains: Trains, split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Region (text), whether held out (bool) and mean rate (spikes/s) of every unit, each [N]."""
    heldout = np.zeros(trains.n_units, dtype=bool)
    heldout[split.heldout[trains.session]] = True
    rates = np.bincount(trains.unit, minlength=trains.n_units) / (trains.duration_ticks / TICKS_PER_SECOND)
    return trains.units["region"].astype(str).to_numpy(), heldout, rates


def true_rates(recording: Path | str, start: int, bins: int, bin_ticks: int) -> np.ndarray | None:
    """True rates [bins, unit] of the window from the tick `start` on, spikes/s; None where the recording has none.

    NaN outside of the trials that were simulated. Of the truth, the trials that the window meets are read.
    """
    import zarr

    path = Path(recording) / "truth.zarr"
    if not path.is_dir():
        return None
    group = zarr.open_group(str(path), mode="r")
    if "rates" not in group:
        return None
    rates, about = group["rates"], dict(group.attrs)
    assert isinstance(rates, zarr.Array)
    trial_starts = np.asarray(about["trial_start"], dtype=np.float64)
    first, last = np.searchsorted(to_ticks(trial_starts), [start, start + bins * bin_ticks], side="right")
    # The one that goes on at `start`, and those that begin later.
    met = slice(max(int(first) - 1, 0), max(int(last), 1))
    own = Truth({"rates": np.asarray(rates[met])}, about | {"trial_start": trial_starts[met]})
    means = window_means(own, "rates", np.array([start]), bins, bin_ticks)[0]
    return means if np.isfinite(means).any() else None


def time_label(event: object) -> str:
    """Label of a time axis whose 0 is the aligned `event`; of one whose 0 is the window's start where there is none.

    >>> time_label("stimulus_onset"), time_label("")
    ('Time from stimulus onset (s)', 'Time in window (s)')
    """
    return f"Time from {event.replace('_', ' ')} (s)" if isinstance(event, str) and event else "Time in window (s)"


def example_units(
    rates: np.ndarray, regions: np.ndarray, heldout: np.ndarray, among: np.ndarray, count: int
) -> np.ndarray:
    """The fastest units, taken in turn from held-in and held-out units and from each region; rows, `count` at most."""
    table = pd.DataFrame({"unit": among, "rate": rates[among], "region": regions[among], "heldout": heldout[among]})
    table = table.sort_values("rate", ascending=False, kind="stable")
    table["turn"] = table.groupby(["heldout", "region"]).cumcount()
    table["share"] = table.sort_values(["turn", "rate"], ascending=[True, False]).groupby("heldout").cumcount()
    chosen = table.sort_values(["share", "rate"], ascending=[True, False]).head(count)
    return chosen.sort_values(["heldout", "region", "rate"], ascending=[True, True, False])["unit"].to_numpy()


def coarsen(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of values [T, ...] over equal runs, so that at most `bins` remain, and the runs' centres in bins."""
    width = max(1, -(-len(values) // bins))
    edges = np.arange(0, len(values), width)
    counts = np.diff([*edges, len(values)])
    means = np.add.reduceat(values.astype(float), edges, axis=0) / counts.reshape(-1, *[1] * (values.ndim - 1))
    return means, edges + counts / 2


def coarsen_trials(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """`coarsen` along the time axis of values [trial, T, unit]: NaN where any bin of a run is NaN."""
    means, centres = coarsen(np.moveaxis(values, 1, 0), bins)
    return np.moveaxis(means, 0, 1), centres
