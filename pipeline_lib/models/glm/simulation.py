"""Spikes from a fitted coupled GLM that listens to itself. numpy only."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline_lib.errors import InputError


@dataclass
class Simulated:
    """What was simulated.

    `counts` (repeats, bins, units) uint16; `rates` of the same shape, float32 expected counts given the past; `capped`:
    share of bins in which a rate was held at the cap.
    """

    counts: np.ndarray
    rates: np.ndarray
    capped: float


def simulate(
    intercept: np.ndarray,
    filters: np.ndarray,
    bins: int,
    repeats: int = 1,
    inputs: np.ndarray | float = 0.0,
    cap: float = 1.0,
    link: str = "exp",
    seed: int = 0,
) -> Simulated:
    """Run the network forward from silence, `repeats` times.

    Parameters
    ----------
    intercept : (units,) linear predictor without input.
    filters : (sender, receiver, lag), change of the predictor k + 1 bins after a spike; NaN (not fitted): none.
    inputs : added to the predictor: (bins, units) or a number.
    cap : largest expected count a bin. A network whose excitation feeds itself would grow without bound; a rate above
        the cap is held there, and a warning says how often.
    link : exp or softplus (Poisson counts).

    Raises
    ------
    InputError : shapes that do not fit, an unknown link, a cap that is not positive.

    Examples
    --------
    >>> filters = np.zeros((2, 2, 3))
    >>> filters[0, 1] = 0.5  # for three bins after a spike of unit 0, unit 1 fires 1.6 times as often
    >>> made = simulate(np.log([0.1, 0.1]), filters, bins=5000, seed=0)
    >>> made.counts.shape, made.capped, (made.rates.mean(axis=(0, 1)) > 0.11).tolist()
    ((1, 5000, 2), 0.0, [False, True])
    """
    units = len(intercept)
    links: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "exp": np.exp,
        "softplus": lambda eta: np.logaddexp(0.0, eta),
    }
    if filters.shape[:2] != (units, units):
        raise InputError("simulate", "filters", f"shape {filters.shape}", f"({units}, {units}, lags)")
    if link not in links:
        raise InputError("simulate", "link", repr(link), f"one of {', '.join(links)}")
    if not cap > 0:
        raise InputError("simulate", "cap", cap, "a positive expected count a bin")
    inputs = np.broadcast_to(np.asarray(inputs, dtype=np.float64), (bins, units))
    lags = filters.shape[2]
    # Row = sender; what one of its spikes adds to all receivers in the coming bins.
    effects = np.nan_to_num(filters.astype(np.float64)).transpose(0, 2, 1).reshape(units, -1)
    random = np.random.default_rng(seed)
    counts = np.zeros((repeats, bins, units), dtype=np.uint16)
    rates = np.zeros((repeats, bins, units), dtype=np.float32)
    coming = np.zeros((repeats, lags, units))
    capped = 0
    for bin_ in range(bins):
        slot = bin_ % lags
        eta = intercept + inputs[bin_] + coming[:, slot]
        coming[:, slot] = 0.0
        # The cap comes before the exponential: nothing overflows.
        rate = links[link](np.minimum(eta, 50.0))
        capped += int((rate > cap).sum())
        rates[:, bin_] = np.minimum(rate, cap)
        counts[:, bin_] = random.poisson(rates[:, bin_])
        active = np.flatnonzero(counts[:, bin_].any(0))
        if len(active):
            added = (counts[:, bin_, active].astype(np.float64) @ effects[active]).reshape(repeats, lags, units)
            # Lag k + 1 lands in slot bin_ + 1 + k: the ring turned so that it starts there.
            coming += np.roll(added, (bin_ + 1) % lags, axis=1)
    share = capped / counts.size
    if capped:
        warnings.warn(f"simulate: {share:.2%} of the rates were held at {cap} spikes a bin: unstable?", stacklevel=2)
    return Simulated(counts, rates, share)
