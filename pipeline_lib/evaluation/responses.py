"""Responses to conditions (PSTHs): of the measured spikes, or those that a benchmark's files give, and a model's.

Without intervals: resampled trials double the noise of the measured PSTH, so that a bootstrap is biased down.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline_lib.clock import bin_ticks, to_ticks
from pipeline_lib.evaluation.metrics import given_psth_r2, psth_r2, smoothed_psths
from pipeline_lib.evaluation.parts import Part, window_bins
from pipeline_lib.evaluation.rows import OVER_UNITS, Row, score_row
from pipeline_lib.recording import Truth
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

SMOOTHING, NLB_SMOOTHING = 20.0, 70.0  # ms


@dataclass(frozen=True)
class Responses:
    """What the responses to all trials of a session are compared with.

    Attributes
    ----------
    names, psths : of the conditions, (conditions, bins, units); NaN = unknown.
    samples : by sample of the session, `condition` (text, that of none of `names` if it has none) and `shift`: bins by
        which its window begins later than the PSTHs.
    given : they come from a benchmark's files.
    """

    names: np.ndarray
    psths: np.ndarray
    samples: pd.DataFrame
    given: bool


def measured(trains: Trains, split: Split) -> Responses | None:
    """PSTHs of all trials of a session, smoothed as the Neural Latents Benchmark does; None where there are none."""
    samples = _trials(trains, split)
    if samples is None:
        return None
    bins = samples["bins"].to_numpy()
    where = samples["start_tick"].to_numpy(dtype=np.int64), int(bins.max()), split.bin_ticks
    known = observed_windows(trains, *where) & (np.arange(bins.max()) < bins[:, None])[:, :, None]
    condition = samples["condition"].to_numpy(dtype=str)
    psths = smoothed_psths(bin_windows(trains, *where), condition, NLB_SMOOTHING / split.bin_size, known)
    return Responses(*psths, samples.assign(shift=0), given=False)


def given(trains: Trains, split: Split, arrays: Mapping[str, np.ndarray], attributes: dict) -> Responses | None:
    """The PSTHs of a benchmark's files (see `sources.nlb`), undoing the jitter of each trial; None where windows do not
    lie on their bins."""
    samples, ticks = _trials(trains, split), bin_ticks(attributes["bin_size"])
    if samples is None or split.bin_ticks != ticks:
        return None
    trial = samples["trial"].to_numpy()
    late = samples["start_tick"].to_numpy(dtype=np.int64) - to_ticks(attributes["trial_start"])[trial]
    if (late % ticks).any():
        return None
    condition = arrays["psth_condition"][trial].astype(str)
    shift = late // ticks + arrays["psth_jitter"][trial]
    names = np.arange(len(arrays["psth"])).astype(str)
    return Responses(names, arrays["psth"], samples.assign(condition=condition, shift=shift), given=True)


def responses_of(trains: Trains, split: Split, truth: Truth | None) -> Responses | None:
    """What `nlb_psth_r2` compares with: the PSTHs of the benchmark, where its files gave any, else measured ones."""
    if truth is not None and "psth" in truth.arrays:
        return given(trains, split, truth.arrays, truth.attributes)
    return measured(trains, split)


def _trials(trains: Trains, split: Split) -> pd.DataFrame | None:
    """The samples of a session, None where they are not trials."""
    samples = split.samples[split.samples["session"] == trains.session]
    return None if not len(samples) or (samples["trial"] < 0).any() else samples


def response_rows(
    part: Part, split: Split, responses: Responses | None, groups: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """PSTH R2 of groups of units where windows are trials: against the PSTHs of these very trials, and of all."""
    if (part.samples["trial"] < 0).any():
        return
    inside = window_bins(part, split.forward_bins)[0][:, :, None]
    window = part.observed & inside
    condition = part.samples["condition"].to_numpy(dtype=str)
    for units, members in groups.items():
        counts, rates, seen = (values[:, :, members] for values in (part.counts, part.rates, window))
        value, number = psth_r2(counts, rates, condition, SMOOTHING / split.bin_size, seen)
        yield score_row("psth_r2", np.array([value]), number, aggregation=OVER_UNITS) | {"units": units}
    if responses is None:
        return
    about, bins = responses.samples.loc[part.samples.index], responses.psths.shape[1]
    condition, shift = about["condition"].to_numpy(dtype=str), about["shift"].to_numpy(dtype=np.int64)
    # The benchmark scores rates of its windows whatever was observed in them, and all units together.
    scored = np.broadcast_to(inside, window.shape) if responses.given else window
    rates, scored = moved(part.rates, shift, bins, np.nan), moved(scored, shift, bins, False)
    everyone = {"all": np.arange(window.shape[2])} if responses.given else {}
    for units, members in ({**groups} | everyone).items():
        own = responses.psths[:, :, members], rates[:, :, members], condition, scored[:, :, members]
        value, number = given_psth_r2(responses.names, *own)
        yield score_row("nlb_psth_r2", np.array([value]), number, aggregation=OVER_UNITS) | {"units": units}


def moved(values: np.ndarray, by: np.ndarray, bins: int, fill: float | bool) -> np.ndarray:
    """Each of `values` (samples, T, units) moved `by` (samples,) bins to later ones, in `bins` bins.

    >>> moved(np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), np.array([1, -1]), 3, 0.0)[:, :, 0].tolist()
    [[0.0, 1.0, 2.0], [4.0, 0.0, 0.0]]
    """
    if not by.any() and bins == values.shape[1]:
        return values
    source = np.arange(bins) - by[:, None]
    known = (source >= 0) & (source < values.shape[1])
    taken = np.take_along_axis(values, np.where(known, source, 0)[:, :, None], axis=1)
    return np.where(known[:, :, None], taken, fill)
