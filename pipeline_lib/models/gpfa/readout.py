"""Poisson regression of one unit on a few inputs, by Newton's method."""

import numpy as np

STEPS = 50
LARGEST_CHANGE = 2.0
"""Most by which a step may change any log-rate: a step that overshoots would overflow the exponential."""


def fit_readout(
    inputs: np.ndarray, counts: np.ndarray, ridge: float, start: np.ndarray | None = None, tolerance: float = 1e-8
) -> np.ndarray:
    """Weights and, last, bias [D + 1]: exp(inputs @ weights + bias) is the expected count.

    Minimises sum(rate - count * log rate) + ridge / 2 * |weights|^2. A unit without a spike has weights 0 and a bias
    that says half a spike in all.

    Parameters
    ----------
    inputs : [R, D]. counts : [R]. start : [D + 1] to start from.
    tolerance : nats a spike; done when a step is expected to gain less.
    """
    spikes = counts.sum(dtype=np.float64)
    solution = np.zeros(inputs.shape[1] + 1)
    solution[-1] = np.log(max(spikes, 0.5) / max(len(counts), 1))
    if spikes == 0:
        return solution
    solution = solution if start is None else start.copy()
    design = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    penalty = np.append(np.full(inputs.shape[1], ridge), 0.0)
    for _ in range(STEPS):
        rates = np.exp(design @ solution)
        gradient = design.T @ (rates - counts) + penalty * solution
        step = np.linalg.solve((design.T * rates) @ design + np.diag(penalty + 1e-9), gradient)
        if gradient @ step < 2 * tolerance * spikes:
            break
        solution -= step * min(1.0, LARGEST_CHANGE / max(np.abs(design @ step).max(), 1e-300))
    return solution
