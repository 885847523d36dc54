"""Expectation-maximisation for Gaussian-process factor analysis; every step raises the likelihood."""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import minimize_scalar

from pipeline_lib.models.gpfa.posterior import Group, Parameters, Posterior, covariance, groups, inverse, known

NOISE_FLOOR = 1e-2
"""Least noise of a unit, as a share of its variance."""
SPREAD = 4.0
"""First and last timescale to start from, as multiples of the one that is given and of its inverse."""


def start(values: np.ndarray, mask: np.ndarray, latents: int, timescale: float) -> Parameters:
    """Parameters to start from: the principal components of what was observed, scaled as in probabilistic PCA.

    Parameters
    ----------
    values, mask : [S, L, N] observations and which of them there are.
    latents : D.
    timescale : bins, about which the latents' are spread.
    """
    values, bins = known(values, mask), np.maximum(mask.sum(axis=(0, 1)), 1)
    offset = values.sum(axis=(0, 1)) / bins
    products = np.zeros((values.shape[2],) * 2)
    for own, seen in zip(values, mask, strict=True):
        centred = own - seen * offset
        products += centred.T @ centred
    variance = np.maximum(np.diag(products) / bins, 1e-6)
    shared, vectors = np.linalg.eigh(products / bins.mean())
    noise = shared[: max(values.shape[2] - latents, 1)].mean()
    strength = np.sqrt(np.maximum(shared[::-1][:latents] - noise, 0.01 * noise))
    loadings = vectors[:, ::-1][:, :latents] * strength
    rest = np.maximum(variance - (loadings**2).sum(axis=1), 0.1 * variance)
    # Latents of one timescale could be rotated into each other without loss: a saddle that takes long to leave.
    spread = np.geomspace(SPREAD, 1 / SPREAD, latents) if latents > 1 else np.ones(1)
    return Parameters(loadings, offset, rest, timescale * spread)


def steps(values: np.ndarray, mask: np.ndarray, parameters: Parameters) -> Iterator[tuple[Parameters, float]]:
    """Parameters after each step, without end, with the log-likelihood (nats) of those that the step began with."""
    values, patterns = known(values, mask), list(groups(mask))
    counted = np.maximum(mask.sum(axis=(0, 1)), 1)
    variance = np.einsum("stn,stn->n", values, values) / counted - (values.sum(axis=(0, 1)) / counted) ** 2
    floor = np.maximum(NOISE_FLOOR * variance, 1e-6)
    while True:
        sums = _Sums(values, patterns, parameters)
        augmented = np.linalg.solve(sums.moments, sums.cross[:, :, None])[:, :, 0]
        noise = (sums.squares - (augmented * sums.cross).sum(axis=1)) / counted
        timescales = [
            _timescale(each, sums.windows, before)
            for each, before in zip(sums.over_time, parameters.timescales, strict=True)
        ]
        parameters = Parameters(augmented[:, :-1], augmented[:, -1], np.maximum(noise, floor), np.array(timescales))
        yield parameters, sums.log_likelihood


class _Sums:
    """Expectations that a step needs, summed over windows.

    `moments` [N, D + 1, D + 1] and `cross` [N, D + 1], of the latents and a constant with themselves and with each
    unit, over the bins where it was observed; `squares` [N]; `over_time` [D, L, L], of each latent with itself.
    """

    def __init__(self, values: np.ndarray, patterns: list[Group], parameters: Parameters) -> None:
        units, latents = parameters.loadings.shape
        bins = values.shape[1]
        self.windows, self.log_likelihood = len(values), 0.0
        self.moments, self.cross = np.zeros((units, latents + 1, latents + 1)), np.zeros((units, latents + 1))
        self.squares, self.over_time = np.zeros(units), np.zeros((latents, bins, bins))
        every = np.arange(bins)
        for group in patterns:
            own = values[group.rows] if len(group.rows) < len(values) else values
            seen = group.mask.astype(np.float64)
            posterior = Posterior(parameters, own, group.mask)
            self.log_likelihood += posterior.log_likelihood
            mean = posterior.mean
            within = posterior.covariance[:, every, :, every] * len(own)
            within += np.einsum("sit,sjt->tij", mean, mean, optimize=True)
            self.moments[:, :-1, :-1] += np.tensordot(seen, within, (0, 0))
            total = np.einsum("tn,sit->ni", seen, mean, optimize=True)
            self.moments[:, :-1, -1] += total
            self.moments[:, -1, :-1] += total
            self.moments[:, -1, -1] += len(own) * seen.sum(axis=0)
            self.cross[:, :-1] += own.reshape(-1, units).T @ mean.transpose(0, 2, 1).reshape(-1, latents)
            self.cross[:, -1] += own.sum(axis=(0, 1))
            self.squares += np.einsum("stn,stn->n", own, own)
            for latent in range(latents):
                path = mean[:, latent]
                self.over_time[latent] += path.T @ path + len(own) * posterior.covariance[latent, :, latent]
        # A unit that was never observed, in no bin, has loadings 0.
        self.moments[:, np.arange(latents + 1), np.arange(latents + 1)] += 1e-9


def _timescale(second_moment: np.ndarray, windows: int, before: float) -> float:
    """The timescale (bins) of the best prior for a latent with this sum of second moments [L, L]; never a worse one."""
    bins = len(second_moment)

    def loss(log_timescale: float) -> float:
        precision, determinant = inverse(covariance(np.exp(log_timescale), bins))
        return float(windows * determinant + (precision * second_moment).sum())

    found = minimize_scalar(loss, bounds=np.log([0.3, 2.0 * bins]), method="bounded", options={"xatol": 1e-2})
    return float(np.exp(found.x)) if found.fun < loss(np.log(before)) else before
