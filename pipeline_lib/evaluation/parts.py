"""What a fit says of the windows of a session, beside what was measured in them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.coupling import CouplingMatrices
from pipeline_lib.evaluation.predictions import couplings_of
from pipeline_lib.evaluation.sums import blocks
from pipeline_lib.models.mean_rate import mean_rates
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

if TYPE_CHECKING:
    import zarr

MASKED = "rates_"
"""Names of `extras` that begin so are rates, too: of what was hidden from the model in some way that the name says."""


@dataclass(frozen=True)
class Fitted:
    """What a fit says of one session: `rates` (samples, bins, units), `sample` (samples,) rows of the split.

    `masked` are more rates, by what was hidden from the model: NaN where there is no such prediction.
    """

    rates: np.ndarray
    sample: np.ndarray
    latents: np.ndarray | None
    couplings: CouplingMatrices | None
    masked: dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """Prediction and measurement of one part of a session; arrays (samples, bins, units) but for `samples`."""

    samples: pd.DataFrame
    rates: np.ndarray
    counts: np.ndarray
    observed: np.ndarray
    latents: np.ndarray | None
    masked: dict[str, np.ndarray]


def read_fitted(predictions: "zarr.Group", trains: Trains, split: Split) -> Fitted:
    """What the store `predictions` says of a session.

    Raises
    ------
    InputError : nothing, samples of another split, or arrays of another shape than its samples, their bins and units.
    """
    import zarr

    session, where = trains.session, str(predictions.store_path)
    if session not in predictions:
        raise InputError(where, session, "no such group", "predictions of every session of the cohort")
    group = predictions[session]
    rates, sample = np.asarray(group["rates"][:]), np.asarray(group["sample"][:])
    unknown = np.setdiff1d(sample, split.samples.index[split.samples["session"] == session])
    if len(unknown):
        accepted = "samples of this split (was the fit made with another?)"
        raise InputError(where, f"{session}/sample", int(unknown[0]), accepted)
    extras = group.get("extras")
    masked = {}
    if isinstance(extras, zarr.Group):
        names = [name for name, _ in extras.arrays() if name.startswith(MASKED)]
        masked = {name.removeprefix(MASKED): np.asarray(extras[name][:]) for name in sorted(names)}
    latents = np.asarray(group["latents"][:]) if "latents" in group else None
    shape = (len(sample), int(split.samples["bins"].loc[sample].max()) if len(sample) else 0, trains.n_units)
    hidden = {f"extras/{MASKED}{way}": values for way, values in masked.items()}
    for field, values in ({"rates": rates} | hidden).items():
        if values.shape != shape:
            raise InputError(where, f"{session}/{field}", f"shape {values.shape}", f"{shape}: samples, bins, units")
    if latents is not None and latents.shape[:2] != shape[:2]:
        raise InputError(where, f"{session}/latents", f"shape {latents.shape}", f"{shape[:2]}: samples, bins")
    return Fitted(rates, sample, latents, couplings_of(predictions, session), masked)


def read_part(trains: Trains, split: Split, fitted: Fitted, name: str) -> Part | None:
    """The samples of a part that were predicted, in the order of the split: for every model the same windows are drawn,
    whatever its own order. None where there is none."""
    order = np.argsort(fitted.sample)
    chosen = order[(split.samples["split"].loc[fitted.sample[order]] == name).to_numpy()]
    if not len(chosen):
        return None
    samples = split.samples.loc[fitted.sample[chosen]]
    rates = fitted.rates[chosen]
    where = samples["start_tick"].to_numpy(dtype=np.int64), rates.shape[1], split.bin_ticks
    latents = None if fitted.latents is None else fitted.latents[chosen]
    masked = {way: values[chosen] for way, values in fitted.masked.items()}
    return Part(samples, rates, bin_windows(trains, *where), observed_windows(trains, *where), latents, masked)


def joined(first: Part, second: Part) -> Part:
    """The samples of two parts of a session as one, in the order of the split; without rates of masked units."""
    parts = [first, second]
    order = np.argsort(np.concatenate([part.samples.index for part in parts]))

    def both(arrays: list[np.ndarray]) -> np.ndarray:
        bins = max(array.shape[1] for array in arrays)
        padded = [np.pad(array, ((0, 0), (0, bins - array.shape[1]), (0, 0))) for array in arrays]
        return np.concatenate(padded)[order]

    latents = [part.latents for part in parts if part.latents is not None]
    return Part(
        samples=pd.concat([part.samples for part in parts]).iloc[order],
        rates=both([part.rates for part in parts]),
        counts=both([part.counts for part in parts]),
        observed=both([part.observed for part in parts]),
        latents=both(latents) if len(latents) == len(parts) else None,
        masked={},
    )


def window_bins(part: Part, forward: int) -> tuple[np.ndarray, np.ndarray]:
    """Which bins of each sample (samples, bins) are its window, and which its forward bins, at its end."""
    position, bins = np.arange(part.rates.shape[1]), part.samples["bins"].to_numpy()[:, None]
    return position < bins - forward, (position >= bins - forward) & (position < bins)


def train_means(trains: Trains, split: Split) -> np.ndarray:
    """Mean count per bin of every unit (units,) over the observed bins of its training windows.

    A unit that was silent or never observed there is treated as in `pipeline_lib.models.mean_rate`: a null of next to
    nothing would pay any model 30 bits for each of its spikes.
    """
    samples = split.part(trains.session, "train")
    start, bins = samples["start_tick"].to_numpy(dtype=np.int64), samples["bins"].to_numpy()
    longest = int(bins.max()) if len(bins) else 0
    spikes, observed = np.zeros(trains.n_units), np.zeros(trains.n_units)
    for rows in blocks((len(samples), longest, trains.n_units)):
        where = start[rows], longest, split.bin_ticks
        valid = observed_windows(trains, *where) & (np.arange(longest) < bins[rows, None])[:, :, None]
        spikes += np.where(valid, bin_windows(trains, *where), 0).sum(axis=(0, 1), dtype=np.float64)
        observed += valid.sum(axis=(0, 1))
    return mean_rates(spikes, observed)
