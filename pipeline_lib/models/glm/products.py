"""Products of a design's columns with residuals, which is what gradients are made of: added up chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from pipeline_lib.models.glm.design import Design


class Products:
    """Products of the columns of `design` with residuals of some units: `begin` a chunk, `add` its strips, `end` it."""

    def __init__(self, design: Design, units: int) -> None:
        self.design = design
        self.dense = torch.zeros(units, 1 + design.n_features, dtype=torch.float64, device=design.device)
        shape = (design.n_basis, design.n_senders, units)
        self.couplings = torch.zeros(shape, dtype=torch.float64, device=design.device)

    def begin(self, chunk: tuple[int, int], buffer: Tensor | None = None) -> None:
        """Residuals of a chunk follow; their transforms go to `buffer` (frequencies, blocks, units) if it is given."""
        design, self.chunk, self.buffer = self.design, chunk, buffer
        if buffer is None and design.n_senders:
            shape = (design.n_frequencies, chunk[1] - chunk[0], len(self.dense))
            self.buffer = torch.empty(shape, dtype=design.complex, device=design.device)

    def add(self, residual: Tensor, first: int, last: int) -> None:
        """Blocks `first` to `last` of a residual (blocks, units, block size), zero in the lead-in."""
        design, scored = self.design, residual[..., self.design.history :]
        self.dense[:, 0] += scored.sum(-1).sum(0, dtype=torch.float64)
        features = design.features(first, last)
        if features is not None:
            self.dense[:, 1:] += torch.matmul(scored, features.transpose(1, 2)).sum(0, dtype=torch.float64)
        if self.buffer is not None:
            part = self.buffer[:, first - self.chunk[0] : last - self.chunk[0]]
            # The conjugate goes to the residual, which is rearranged anyway.
            torch.conj_physical(torch.fft.rfft(residual).permute(2, 0, 1), out=part)

    def end(self, spectra: Tensor | None) -> None:
        """The chunk is complete; `spectra` are those of its counts."""
        if spectra is not None and self.buffer is not None:
            self.couplings += self.design.correlate(spectra, self.buffer)

    def total(self) -> Tensor:
        """(units, columns) float64."""
        return torch.cat([self.dense, self.couplings.permute(2, 1, 0).reshape(len(self.dense), -1)], dim=1)
