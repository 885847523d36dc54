"""The posterior of the latents of Gaussian-process factor analysis, exact, with whatever was not observed left out.

Yu et al. 2009, J Neurophysiol 102:614. With latents x (dimension i, bin t) and observations y (bin t, unit n)::

    x_i ~ N(0, K_i),  K_i(t, u) = (1 - NUGGET) exp(-(t - u)^2 / (2 timescale_i^2)) + NUGGET [t = u]
    y_tn = loadings_n . x_t + offset_n + noise,  noise ~ N(0, noise_n)

The posterior covariance does not depend on the spikes, only on which bins of which units were observed: windows that
share this pattern (nearly always all of them) share one matrix, which is factorised once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

NUGGET = 1e-3
"""Variance of a latent that is not smooth; keeps its covariance well conditioned."""


@dataclass(frozen=True)
class Parameters:
    """`loadings` [N, D], `offset` [N], `noise` [N] (variances), `timescales` [D] (bins); float64."""

    loadings: np.ndarray
    offset: np.ndarray
    noise: np.ndarray
    timescales: np.ndarray


@dataclass(frozen=True)
class Group:
    """Windows that were observed alike: their `rows` and the pattern `mask` [L, N]."""

    rows: np.ndarray
    mask: np.ndarray


def groups(mask: np.ndarray) -> Iterator[Group]:
    """The windows of `mask` [S, L, N], by pattern; patterns are in the order of their bits."""
    if mask.all():
        yield Group(np.arange(len(mask)), mask[0])
        return
    alike: dict[bytes, list[int]] = {}
    for row, packed in enumerate(np.packbits(mask.reshape(len(mask), -1), axis=1)):
        alike.setdefault(packed.tobytes(), []).append(row)
    for pattern in sorted(alike):
        rows = np.array(alike[pattern])
        yield Group(rows, mask[rows[0]])


def known(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`values` [S, L, N], 0 where the `mask`, [L, N] or [S, L, N], has nothing; no copy where it has everything."""
    return values if mask.all() else np.where(mask, values, 0.0)


def covariance(timescale: float, bins: int) -> np.ndarray:
    """Prior covariance [bins, bins] of a latent."""
    distance = np.arange(bins)[:, None] - np.arange(bins)
    return (1 - NUGGET) * np.exp(-(distance**2) / (2 * timescale**2)) + NUGGET * np.eye(bins)


def inverse(matrix: np.ndarray) -> tuple[np.ndarray, float]:
    """Inverse and log determinant of a symmetric positive definite matrix.

    Raises
    ------
    LinAlgError : it is not positive definite.
    """
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        raise np.linalg.LinAlgError("not positive definite")
    result, _ = lapack.dpotri(factor, lower=1)
    lower = np.tril(result)
    return lower + np.tril(lower, -1).T, float(2 * np.log(np.diag(factor)).sum())


class Posterior:
    """What the windows of one `Group` say about their latents.

    `covariance` [D, L, D, L], the same for all of them; `mean` [S, D, L]; `log_likelihood`, nats, of all their
    observations `values` [S, L, N] together. Where all are observed nothing of that size is made: what the offset takes
    off them is the same in all windows.
    """

    def __init__(self, parameters: Parameters, values: np.ndarray, mask: np.ndarray) -> None:
        loadings, noise = parameters.loadings, parameters.noise
        (bins, _), latents = mask.shape, loadings.shape[1]
        self.parameters, self.mask, self.values = parameters, mask, known(values, mask)
        weights, offset = mask / noise, mask * parameters.offset
        precision = np.zeros((latents, bins, latents, bins))
        prior_determinant = 0.0
        for latent, timescale in enumerate(parameters.timescales):
            precision[latent, :, latent], determinant = inverse(covariance(timescale, bins))
            prior_determinant += determinant
        every = np.arange(bins)
        precision[:, every, :, every] += np.einsum("tn,ni,nj->tij", weights, loadings, loadings, optimize=True)
        flat, determinant = inverse(precision.reshape(latents * bins, latents * bins))
        self.covariance = flat.reshape(latents, bins, latents, bins)
        readout = loadings / noise[:, None]
        drive = (self.values @ readout - offset @ readout).transpose(0, 2, 1)
        self.mean = (drive.reshape(len(values), -1) @ flat).reshape(drive.shape)
        each = prior_determinant + determinant + (mask * np.log(2 * np.pi * noise)).sum()
        squares = np.einsum("stn,stn->n", self.values, self.values)
        squares -= 2 * parameters.offset * self.values.sum(axis=(0, 1))
        fitted = (squares / noise).sum() + len(values) * (offset**2 * weights).sum() - (drive * self.mean).sum()
        self.log_likelihood = -0.5 * (len(values) * each + fitted)

    def without(self, unit: int) -> np.ndarray:
        """The mean of the latents [S, L, D] had this unit not been observed: what predicts it without its own spikes.

        Its signal f has the posterior N(a, S); its observations y, of precision W (1 / noise where there are any), are
        taken back: the latents' mean changes by cov(latents, f) (I - W S)^-1 W (a - y). One system of the size of a
        window for each unit, whatever the number of windows.
        """
        own = self.parameters.loadings[unit]
        precision = self.mask[:, unit] / self.parameters.noise[unit]
        shared = np.tensordot(self.covariance, own, (2, 0))
        signal = np.tensordot(own, shared, 1)
        error = own @ self.mean.transpose(1, 0, 2).reshape(len(own), -1)
        centred = self.values[:, :, unit] - self.mask[:, unit] * self.parameters.offset[unit]
        error = error.reshape(len(self.mean), -1) - centred
        system = np.eye(len(precision)) - precision[:, None] * signal
        pull = np.linalg.solve(system, (precision * error).T)
        return (self.mean + np.tensordot(pull, shared, (0, 2))).transpose(0, 2, 1)
