"""Principal components against scikit-learn's; t-SNE keeps neighbours together."""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from pipeline_lib.figures.embedding import _neighbour_chances, principal_components, tsne


def test_components_are_those_of_scikit_learn() -> None:
    values = np.random.default_rng(0).normal(size=(50, 6)) * [5, 3, 2, 1, 0.5, 0.1]
    scores, shares = principal_components(values, 3)
    theirs = PCA(6).fit(values)
    assert np.allclose(np.abs(scores), np.abs(theirs.transform(values)[:, :3]))
    assert np.allclose(shares, theirs.explained_variance_ratio_)
    flat, shares = principal_components(np.ones((5, 2)), 3)
    assert not flat.any() and not shares.any()


def test_every_row_has_as_many_neighbours_as_asked() -> None:
    points = np.random.default_rng(1).normal(size=(80, 5)) * np.linspace(0.1, 3, 80)[:, None]
    chances = _neighbour_chances(points, 12.0)
    assert np.isclose(chances.sum(), 1) and np.allclose(chances, chances.T)
    # A row's own chances, before the symmetric mean, are recovered for a cloud of equal density.
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2)
    middle = _neighbour_chances(grid, 8.0)[40]
    entropy = -np.sum(middle / middle.sum() * np.log(middle / middle.sum() + 1e-300))
    assert 7 < np.exp(entropy) < 9


def test_groups_stay_apart_and_neighbours_together() -> None:
    rng = np.random.default_rng(2)
    group = np.repeat([0, 1, 2], 40)
    points = rng.normal(size=(120, 10)) + 8 * np.eye(10)[group]
    placed = tsne(points)
    assert np.array_equal(placed, tsne(points)), "no chance in it"
    assert trustworthiness(points, placed, n_neighbors=8) > 0.85
    centres = np.stack([placed[group == k].mean(axis=0) for k in range(3)])
    nearest = np.linalg.norm(placed[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == group).mean() > 0.98


def test_the_largest_loading_of_a_component_is_positive() -> None:
    values = np.random.default_rng(2).normal(size=(60, 4)) * [4, 3, 2, 1] @ np.linalg.qr(np.ones((4, 4)) - np.eye(4))[0]
    scores, _ = principal_components(values, 3)
    loadings = np.linalg.lstsq(scores, values - values.mean(axis=0), rcond=None)[0]
    assert all(row[np.abs(row).argmax()] > 0 for row in loadings)
