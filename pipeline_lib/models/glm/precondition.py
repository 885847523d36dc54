"""One shared picture of the curvature: the covariance of the features, diagonalised once for all units and strengths.

At a constant rate the Hessian of unit j's loss is curvature_j x covariance + penalty, so its inverse is known for every
unit and every ridge strength from a single eigendecomposition. This is the quadratic approximation of paGLM (Zoltowski
& Pillow, 2018), used to steer an exact fit. It has to be a good guess, not exact.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.models.glm.design import Design

# Above this many columns a full eigendecomposition costs more than the passes it saves: each sender's block alone.
LARGEST_SHARED = 5000
RANK_TOLERANCE = 1e-7
"""Eigenvalues of the columns' correlations below this share of their number are zero but for rounding."""


@dataclass
class Metric:
    """Eigenvalues (k,) and eigenvectors (columns, k) of the scaled feature covariance over some `columns`."""

    columns: Tensor
    values: Tensor
    vectors: Tensor


class Preconditioner:
    """Approximate inverse Hessians in coordinates (centred intercept, features, couplings).

    `allowed` (units, columns - 1) bool: which columns each unit has; `scale` (columns - 1,) relative penalties.
    """

    def __init__(self, covariance: "Covariance", allowed: Tensor, scale: Tensor) -> None:
        self.allowed, self.scale = allowed, scale
        self.dtype = covariance.dtype
        if not allowed.shape[1]:
            self.group, self.metrics = torch.zeros(len(allowed), device=allowed.device), []
            return
        patterns, self.group = torch.unique(allowed, dim=0, return_inverse=True)
        sizes = patterns.sum(1).to(torch.float64)
        shared = (sizes**3).sum() > 4 * float(allowed.any(0).sum()) ** 3 or covariance.blockwise
        if shared:
            # Too many different masks for a metric each: one for all, projected on each unit's columns.
            patterns, self.group = allowed.any(0, keepdim=True), torch.zeros_like(self.group)
        self.metrics = [covariance.metrics(pattern.nonzero()[:, 0], scale) for pattern in patterns]

    def apply(self, gradient: Tensor, units: Tensor, curvature: Tensor, strength: Tensor) -> Tensor:
        """Approximate inverse Hessian times `gradient` (units, columns), float64.

        `units` (n,): which rows of `allowed`; `curvature`, `strength` (n,): of the loss at its start, of the ridge.
        """
        result = torch.zeros_like(gradient)
        result[:, 0] = gradient[:, 0] / curvature
        allowed = self.allowed[units]
        scaled = torch.where(allowed, gradient[:, 1:] / self.scale.sqrt(), 0.0).to(self.dtype)
        inner = torch.zeros_like(scaled)
        for number, metrics in enumerate(self.metrics):
            rows = (self.group[units] == number).nonzero()
            for metric in metrics:
                hessian = curvature[rows] * metric.values + strength[rows]
                # Directions without data or penalty stay where they are: the solution of smallest norm.
                blind = (metric.values <= _floor(metric)) & (strength[rows] == 0)
                inverse = torch.where(blind, 0.0, 1.0 / hessian).to(self.dtype)
                part = scaled[rows, metric.columns]
                inner[rows, metric.columns] = ((part @ metric.vectors) * inverse) @ metric.vectors.T
        result[:, 1:] = torch.where(allowed, inner.to(torch.float64) / self.scale.sqrt(), 0.0)
        return result


class Covariance:
    """Covariance of all columns but the intercept, from the spectra of the blocks.

    Between counts it is circular within a block (the lead-in wraps around), which costs half a pass; between counts and
    features, and among features, it is exact, of the bins that were seen. `mean` (columns - 1,) and `seen`, their
    number: see `Design.feature_sums`.
    """

    def __init__(self, design: Design, mean: Tensor, seen: float) -> None:
        self.dtype, self.n_features, self.n_basis = design.dtype, design.n_features, design.n_basis
        self.blockwise = design.columns > LARGEST_SHARED
        couplings = self._of_couplings(design)
        if self.blockwise:
            self.features, self.couplings = self._of_features(design, mean, seen)[0], couplings
            return
        size = design.columns - 1
        self.matrix = torch.zeros(size, size, dtype=torch.float64, device=design.device)
        self.matrix[self.n_features :, self.n_features :] = couplings
        if design.n_features:
            features, cross = self._of_features(design, mean, seen)
            self.matrix[: self.n_features, : self.n_features] = features
            self.matrix[: self.n_features, self.n_features :] = cross
            self.matrix[self.n_features :, : self.n_features] = cross.T
        self._working = self.matrix.to(self.dtype)

    @property
    def mean_variance(self) -> float:
        """Mean variance of a coupling's column (of a feature's, where there is no coupling)."""
        if self.blockwise:
            return float(self.couplings.diagonal(dim1=1, dim2=2).mean())
        diagonal = self.matrix.diagonal()
        chosen = diagonal[self.n_features :] if len(diagonal) > self.n_features else diagonal
        return float(chosen.mean()) if len(chosen) else 0.0

    def of_couplings(self) -> Tensor:
        """Of the couplings' columns alone; where only its diagonal blocks are kept, zero between them."""
        if self.blockwise:
            return torch.block_diag(*self.couplings)
        return self.matrix[self.n_features :, self.n_features :]

    def multiply(self, vectors: Tensor) -> Tensor:
        """Covariance times `vectors` (k, columns - 1) float64; where only blocks are kept, without what is between."""
        if not self.blockwise:
            return (vectors.to(self.dtype) @ self._working).to(torch.float64)
        couplings = vectors[:, self.n_features :].unflatten(1, (-1, self.n_basis))
        product = torch.einsum("ksb,sbc->ksc", couplings, self.couplings).flatten(1)
        return torch.cat([vectors[:, : self.n_features] @ self.features, product], dim=1)

    def largest(self) -> float:
        """Largest eigenvalue."""
        if not self.blockwise:
            return float(torch.linalg.eigvalsh(self._working)[-1])
        return max(float(torch.linalg.eigvalsh(block)[-1]) for block in [*self.couplings, self.features] if len(block))

    def rank_deficiency(self) -> int:
        """Directions of the columns that the data say nothing about, beside columns that never change."""
        blocks = [*self.couplings, self.features] if self.blockwise else [self.matrix]
        lost = 0
        for block in blocks:
            varying = block[block.diagonal() > 0][:, block.diagonal() > 0]
            deviation = varying.diagonal().sqrt()
            correlation = varying / (deviation[:, None] * deviation)
            lost += int((torch.linalg.eigvalsh(correlation) < RANK_TOLERANCE * len(correlation)).sum())
        return lost

    def metrics(self, columns: Tensor, scale: Tensor) -> list[Metric]:
        """Eigendecomposition of the scaled covariance over `columns`: one block, or one a sender where it is large."""
        if not self.blockwise:
            return [self._metric(self.matrix[columns][:, columns], columns, scale)]
        metrics = []
        for sender, block in enumerate(self.couplings):
            start = self.n_features + sender * self.n_basis
            own = (columns >= start) & (columns < start + self.n_basis)
            inside = columns[own] - start
            if len(inside):
                metrics.append(self._metric(block[inside][:, inside], columns[own], scale))
        own = columns < self.n_features
        if own.any():
            metrics.append(self._metric(self.features[columns[own]][:, columns[own]], columns[own], scale))
        return metrics

    def _metric(self, matrix: Tensor, columns: Tensor, scale: Tensor) -> Metric:
        root = scale[columns].sqrt()
        values, vectors = torch.linalg.eigh((matrix / (root[:, None] * root)).to(self.dtype))
        return Metric(columns, values.clamp(min=0.0).to(torch.float64), vectors)

    def _of_couplings(self, design: Design) -> Tensor:
        """(senders x basis, senders x basis), or its diagonal blocks (senders, basis, basis) if there are too many."""
        senders, basis, size = design.n_senders, design.n_basis, design.blocks.size
        if not senders:
            return torch.zeros(0, 0, dtype=torch.float64, device=design.device)
        frames = float((design.blocks.valid + design.history).sum())
        totals = torch.zeros(senders, dtype=torch.float64, device=design.device)
        shape = (design.n_frequencies, senders) if self.blockwise else (design.n_frequencies, senders, senders)
        power = torch.zeros(shape, dtype=design.complex, device=design.device)
        for first, last in design.chunks(senders):
            spectra = design.spectra(first, last)
            assert spectra is not None
            totals += spectra[0].real.sum(0, dtype=torch.float64)
            if self.blockwise:
                power += (spectra.abs() ** 2).sum(1)
            else:
                torch.baddbmm(power, spectra.mH, spectra, out=power)
        power[1:-1] *= 2
        pairs = (design.basis.conj()[:, :, None] * design.basis[:, None, :]).reshape(design.n_frequencies, -1)
        flat = torch.view_as_real(power.reshape(design.n_frequencies, -1))
        second = pairs.real.T @ flat[..., 0] - pairs.imag.T @ flat[..., 1]
        second = second.to(torch.float64) / (size * frames)
        mean = totals[:, None] * design.basis[0].real.to(torch.float64) / frames
        if self.blockwise:
            blocks = second.reshape(basis, basis, senders).permute(2, 0, 1)
            return blocks - mean[:, :, None] * mean[:, None, :]
        matrix = second.reshape(basis, basis, senders, senders).permute(2, 0, 3, 1).reshape(mean.numel(), -1)
        return matrix - mean.reshape(-1, 1) * mean.reshape(-1)

    def _of_features(self, design: Design, mean: Tensor, seen: float) -> tuple[Tensor, Tensor]:
        """Covariance (features, features) and with the couplings (features, senders x basis)."""
        count = design.n_features
        if not count:
            return mean.new_zeros(0, 0), mean.new_zeros(0, len(mean))

        def features(first: int, last: int) -> Tensor:
            found = design.features(first, last)
            assert found is not None
            # Elsewhere they say nothing about any unit; a huge value there would pass for curvature, and for certainty.
            return found * design.seen(first, last)[:, None]

        second = design.products(count, features)[:, 1:] / max(seen, 1.0) - mean[:count, None] * mean
        return second[:, :count], second[:, count:]


def _floor(metric: Metric) -> float:
    """Eigenvalues up to this are rounding."""
    precision = torch.finfo(metric.vectors.dtype).eps
    return float(metric.values.max()) * precision * 10 if len(metric.values) else 0.0
