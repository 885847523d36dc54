"""Read-ins and read-outs of several sessions that start out speaking of the same latents.

Principal component regression (Pandarinath et al. 2018): the principal components of the average responses of all
sessions' units together, to the conditions that all sessions have, are what every session's read-in starts to read and
its read-out starts to write. Where sessions have no condition in common, each starts at its own components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline_lib.models.gaussian import smooth

RIDGE = 0.01
"""Penalty of the regressions, as a share of the mean variance of their inputs."""
FLOOR = 0.1
"""Share of a unit's mean count that is added before the logarithm."""


@dataclass(frozen=True)
class Responses:
    """Of one session, L bins (the first `history` before the window) and N units.

    Attributes
    ----------
    spikes, seen : by condition, [L, N]: spikes, and how many windows were observed.
    some : reads counts of some of the windows, which of them are learned from and which were observed, each [S, L, N];
        these are held for one session at a time.
    heldin : rows of the held-in units [H].
    history : see above.
    """

    spikes: dict[int, np.ndarray]
    seen: dict[int, np.ndarray]
    some: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]
    heldin: np.ndarray
    history: int


@dataclass(frozen=True)
class Alignment:
    """`read_in` [H, K] and its offset [K]: counts a bin of held-in units to latents of variance 1; `read_out` [K, N]:
    latents to the logarithm of all units' rates, about their mean."""

    read_in: np.ndarray
    offset: np.ndarray
    read_out: np.ndarray


def align(sessions: Mapping[str, Responses], width: int, sd: float) -> dict[str, Alignment]:
    """Read-ins and read-outs of `width` latents; `sd`: of the Gaussian, in bins, that smooths responses."""
    shared = sorted(set.intersection(*(set(each.spikes) for each in sessions.values())))
    if not shared:
        made = {}
        for session, each in sessions.items():
            (x,) = _known([_trials(each, sd)])
            made[session] = _regress(x, _components(x[:, each.heldin], width), each.heldin)
        return made
    responses = {session: _averages(each, shared, sd) for session, each in sessions.items()}
    bins = min(x.shape[1] for x in responses.values())
    known = _known([x[:, :bins].reshape(-1, x.shape[2]) for x in responses.values()])
    rows = dict(zip(responses, known, strict=True))
    everyone = np.concatenate([rows[session][:, each.heldin] for session, each in sessions.items()], axis=1)
    latents = _components(everyone, width)
    return {session: _regress(rows[session], latents, each.heldin) for session, each in sessions.items()}


def _averages(session: Responses, conditions: list[int], sd: float) -> np.ndarray:
    """Smoothed mean counts [conditions, T, N]; NaN where nothing was observed."""
    means = []
    for condition in conditions:
        seen = session.seen[condition][None]
        mean = np.where(seen > 0, session.spikes[condition] / np.maximum(seen, 1), 0)
        means.append(smooth(mean.astype(np.float32), seen > 0, sd, session.history)[0])
    return np.stack(means)


def _trials(session: Responses, sd: float) -> np.ndarray:
    """Smoothed counts of the bins of some windows, [bins, N]; NaN where a unit was not observed.

    Of what is kept from the fit the bins around it tell, where there are any.
    """
    counts, learned, observed = session.some()
    smoothed = smooth(counts.astype(np.float32), learned, sd, session.history)
    smoothed[~observed[:, session.history :]] = np.nan
    return smoothed.reshape(-1, smoothed.shape[2])


def _known(sessions: list[np.ndarray]) -> list[np.ndarray]:
    """Of each session's bins [bins, N], NaN where a unit was not observed, those in which all that ever were are known.

    Where units that come and go leave no such bin, all are taken. Where a unit is then not known, it is at its mean:
    it says nothing there, and one that was never observed reads and writes nothing.
    """
    known = [np.isfinite(x) for x in sessions]
    seen = np.logical_and.reduce([(each | ~each.any(axis=0)).all(axis=1) for each in known])
    rows = seen if seen.any() else np.ones_like(seen)
    filled = []
    for x, each in zip((x[rows] for x in sessions), (each[rows] for each in known), strict=True):
        mean = np.where(each, x, 0).sum(axis=0) / np.maximum(each.sum(axis=0), 1)
        filled.append(np.where(each, x, mean.astype(x.dtype)))
    return filled


def _components(x: np.ndarray, width: int) -> np.ndarray:
    """Scores [rows, width] on the first principal components, of variance 1; 0 beyond the rank.

    A component's sign is such that its loadings sum to something positive.
    """
    centred = x - x.mean(axis=0)
    _, values, axes = np.linalg.svd(centred.T @ centred)
    rank = min(width, int((values > 1e-10 * max(values[0], 1e-30)).sum()))
    axes = axes[:rank] * np.where(axes[:rank].sum(axis=1) < 0, -1, 1)[:, None]
    scores = np.zeros((len(x), width))
    scores[:, :rank] = centred @ axes.T
    scores[:, :rank] /= np.maximum(scores[:, :rank].std(axis=0), 1e-12)
    return scores


def _regress(x: np.ndarray, latents: np.ndarray, heldin: np.ndarray) -> Alignment:
    """Ridge regressions of the latents on counts, and of log-rates on the latents."""
    mean = x.mean(axis=0)
    read_in = _ridge((x - mean)[:, heldin], latents)
    logs = np.log(x + FLOOR * mean + 1e-6)
    return Alignment(read_in, -mean[heldin] @ read_in, _ridge(latents, logs - logs.mean(axis=0)))


def _ridge(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    square = inputs.T @ inputs
    penalty = RIDGE * max(float(np.trace(square)) / len(square), 1e-12)
    return np.linalg.solve(square + penalty * np.eye(len(square)), inputs.T @ targets)
