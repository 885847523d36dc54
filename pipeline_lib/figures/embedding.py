"""Many dimensions on paper: principal components, and t-SNE for which trials are alike."""

import numpy as np

PERPLEXITY, ITERATIONS, EARLY = 15.0, 350, 100


def principal_components(values: np.ndarray, dimensions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Scores (rows, dimensions) on the first principal components, and every component's share of the variance.

    The sign of a component is such that its largest loading is positive. Components beyond the rank are 0.

    >>> line = np.arange(4.0)[:, None] * np.array([3.0, 4.0])
    >>> scores, shares = principal_components(line, 1)
    >>> scores.ravel().round(6).tolist(), shares.round(6).tolist()
    ([-7.5, -2.5, 2.5, 7.5], [1.0, 0.0])
    """
    centred = values - values.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    largest = np.abs(right).argmax(axis=1)
    signs = np.where(right[np.arange(len(right)), largest] < 0, -1.0, 1.0)
    scores = np.zeros((len(values), dimensions))
    kept = min(dimensions, len(singular))
    scores[:, :kept] = left[:, :kept] * singular[:kept] * signs[:kept]
    variance = singular**2
    return scores, variance / variance.sum() if variance.sum() > 0 else variance


def tsne(points: np.ndarray) -> np.ndarray:
    """Places (rows, 2) in which near `points` (rows, features) stay near (van der Maaten & Hinton 2008, exact).

    For a few hundred rows: all pairs are held. It begins from the first two principal components, so the same points
    give the same picture. Distances between groups, and how wide a group is, mean nothing; who is near whom does.

    >>> rng = np.random.default_rng(0)
    >>> groups = np.repeat([[0.0], [50.0]], 10, axis=0) + rng.normal(size=(20, 5))
    >>> places = tsne(groups)
    >>> places.shape
    (20, 2)
    """
    rows = len(points)
    if rows < 4:
        return principal_components(points, 2)[0]
    alike = _neighbour_chances(points, min(PERPLEXITY, (rows - 1) / 3))
    start, _ = principal_components(points, 2)
    placed = start / max(float(start[:, 0].std()), 1e-12) * 1e-4
    step, gains = np.zeros_like(placed), np.ones_like(placed)
    rate = max(rows / 12.0, 50.0)
    for iteration in range(ITERATIONS):
        closeness = 1 / (1 + _squared_distances(placed))
        np.fill_diagonal(closeness, 0)
        pull = (alike * (12 if iteration < EARLY else 1) - closeness / closeness.sum()) * closeness
        gradient = 4 * (pull.sum(axis=1)[:, None] * placed - pull @ placed)
        gains = np.maximum(np.where(gradient * step > 0, gains * 0.8, gains + 0.2), 0.01)
        step = (0.5 if iteration < EARLY else 0.8) * step - rate * gains * gradient
        placed = placed + step
    return placed - placed.mean(axis=0)


def _squared_distances(points: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(axis=1)
    return np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0)


def _neighbour_chances(points: np.ndarray, perplexity: float) -> np.ndarray:
    """Chances that two rows are neighbours, symmetric, summing to 1; each has `perplexity` effective neighbours."""
    distances = _squared_distances(points)
    np.fill_diagonal(distances, np.inf)
    distances = distances - distances.min(axis=1, keepdims=True)
    low, high = np.full(len(points), 0.0), np.full(len(points), np.inf)
    sharpness = 1 / np.maximum(np.median(np.where(np.isinf(distances), 0, distances), axis=1), 1e-12)
    for _ in range(60):  # bisection of every row at once
        weights = np.exp(-distances * sharpness[:, None])
        chances = weights / weights.sum(axis=1, keepdims=True)
        entropy = -np.sum(chances * np.log(np.maximum(chances, 1e-300)), axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, sharpness, low), np.where(wide, high, sharpness)
        sharpness = np.where(np.isinf(high), low * 2, (low + high) / 2)
    return (chances + chances.T) / (2 * len(points))
