"""The design matrix of a coupled GLM, as an operator: applied, transposed and correlated, never built.

One column is one sender's counts seen through one basis function. Both directions are convolutions, done block by block
in the frequency domain, so that a pass over the data costs the same for 8 basis functions as for 100 (specs/glm.md,
section 5). Features that are not counts (signals, time in the trial) are dense columns beside it.

Coefficients of a unit, in the order of their columns: intercept, features, sender 0's basis functions, sender 1's ...
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.blocks import Blocks, check_segments, lay_blocks

WORKING_BYTES = {"fast": 48 << 20, "low": 4 << 20}
"""Bytes of one working array of a pass; about six live at once."""
FILTER_BYTES = {"fast": 1 << 30, "low": 16 << 20}
"""Bytes of the filters' spectra, which bound the block."""
REARRANGED = 4
"""Blocks that are transposed together."""


@dataclass
class Data:
    """What is fitted. Arrays may be given as numpy; they are kept as tensors.

    Attributes
    ----------
    counts : (frames, units) uint8 or wider integers; the stretches of `segments` and the history before them.
    segments : (k, 2) first scored frame, frame after the last.
    kernel : (history, basis) float64; row k weighs the count k + 1 bins ago.
    senders, receivers : units (columns of `counts`) whose history is an input; units that are fitted.
    features : (frames, features) float, inputs that are not counts; only scored frames are read.
    weights : (frames, receivers) bool or float, or None (all one); zero where a bin is not observed.
    offset : (frames, receivers) float added to the linear predictor, or None.
    """

    counts: Tensor
    segments: np.ndarray
    kernel: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    features: Tensor | None = None
    weights: Tensor | None = None
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        self.counts = as_counts(self.counts)
        frames, units = self.counts.shape
        self.segments = check_segments(self.segments, len(self.kernel), frames)
        for name in ("senders", "receivers"):
            rows = np.asarray(getattr(self, name), dtype=np.int64)
            if len(rows) and not (rows.min() >= 0 and rows.max() < units):
                raise InputError("data", name, rows.tolist()[:5], f"units 0 to {units - 1}")
            setattr(self, name, rows)
        for name, columns in (("features", None), ("weights", len(self.receivers)), ("offset", len(self.receivers))):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, self._checked(name, torch.as_tensor(values), columns))

    def frames_of(self, lead: int) -> Tensor:
        """Bool (frames,): the scored frames and `lead` before each stretch of them."""
        chosen = torch.zeros(len(self.counts), dtype=torch.bool)
        for start, stop in self.segments:
            chosen[start - lead : stop] = True
        return chosen

    def _checked(self, name: str, values: Tensor, columns: int | None) -> Tensor | None:
        shape = (len(self.counts), values.shape[-1] if columns is None else columns)
        if tuple(values.shape) != shape:
            raise InputError("data", name, f"shape {tuple(values.shape)}", f"{shape}, as many frames as counts")
        scored = self.frames_of(0)
        bad = ~torch.isfinite(values.to(torch.float64)) & scored[:, None]
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            raise InputError(
                "data", f"{name}, frame {row}, column {column}", float(values[row, column]), "finite numbers"
            )
        if name == "weights" and (values[scored] < 0).any():
            raise InputError("data", "weights", "a negative weight", "zero (not observed) or more")
        return values if values.shape[1] else None


def as_counts(counts: Tensor | np.ndarray) -> Tensor:
    """Counts as uint8 where they fit, else as int32 (torch has no other unsigned arithmetic); InputError for others."""
    values = np.asarray(counts)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "uib":
        raise InputError("data", "counts", f"{values.dtype} of shape {values.shape}", "integers (frames, units)")
    if values.min() < 0:
        raise InputError("data", "counts", int(values.min()), "no negative count")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.uint8 if values.max() < 256 else np.int32))


Link = Callable[..., Tensor]


class Design:
    """Passes over `data` in one precision on one device.

    `memory`: "fast" keeps the counts' spectra (about 4.4 bytes a sender and bin in float32); "low" makes them
    again in every pass from the counts.
    """

    def __init__(
        self, data: Data, dtype: torch.dtype = torch.float32, device: str = "cpu", memory: str = "fast"
    ) -> None:
        self.data, self.dtype, self.device, self.memory = data, dtype, torch.device(device), memory
        self.complex = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.history, self.n_basis = data.kernel.shape
        self.n_senders, self.n_receivers = len(data.senders), len(data.receivers)
        self.n_features = 0 if data.features is None else data.features.shape[1]
        self.columns = 1 + self.n_features + self.n_senders * self.n_basis
        # Spectra of the filters, one a sender and receiver, grow with the block: short blocks need less memory.
        pairs = max(1, self.n_senders * self.n_receivers)
        largest = FILTER_BYTES[memory] // (pairs * dtype.itemsize)
        self.blocks: Blocks = lay_blocks(data.segments, self.history, self.n_senders, self.n_basis, largest)
        self.n_frequencies = self.blocks.size // 2 + 1
        self.counts = data.counts.to(self.device)
        self.basis = self._basis_spectrum()
        self.targets = self._gather(self.counts, data.receivers)
        self.dense = None if data.features is None else self._gather(data.features.to(self.device, dtype))
        self.offset = None if data.offset is None else self._gather(data.offset.to(self.device, dtype))
        self.weights = self._block_weights()
        self._kept = self._transform_counts(0, len(self.blocks)) if memory == "fast" and self.n_senders else None

    @property
    def frames(self) -> int:
        """Scored bins."""
        return int(self.blocks.valid.sum())

    def chunks(self, units: int) -> Iterator[tuple[int, int]]:
        """Ranges of blocks whose working arrays, for this many units, have the size `WORKING_BYTES` allows."""
        width = max(units, self.n_senders if self.memory == "low" else 1, 1)
        step = max(1, WORKING_BYTES[self.memory] // (self.blocks.size * width * self.dtype.itemsize))
        for first in range(0, len(self.blocks), step):
            yield first, min(first + step, len(self.blocks))

    def pass_over(
        self, coefficients: Tensor, units: Tensor, link_: Link, targets: bool = True
    ) -> tuple[Tensor, Tensor]:
        """One pass: linear predictors, `link_` on each chunk of them, and back.

        Parameters
        ----------
        coefficients : (units, columns) float64.
        units : (units,) rows of `receivers`, which coefficients belong to.
        link_ : (linear predictors (blocks, units, bins), counts, weights) -> a value per unit, float64; turns the
            predictors into residuals in place. Counts and weights have the same shape, or weights one unit, or None.
        targets : False: `link_` needs no counts and gets None.

        Returns
        -------
        The values (units,) summed over blocks, and the columns' products with the residuals (units, columns), float64.
        """
        kernels = self._kernels(coefficients)
        arrays = (self.targets if targets else None, self.weights, self.offset)
        value = torch.zeros(len(units), dtype=torch.float64, device=self.device)
        products = Products(self, len(units))
        for first, last in self.chunks(len(units)):
            full, eta = self._predictor(kernels, coefficients, first, last)
            counts, weights, offset = (self._pick(array, first, last, units) for array in arrays)
            if offset is not None:
                eta += offset
            value += link_(eta, counts, weights)
            full[..., : self.history] = 0.0
            products.add(full, first, last)
        return value, products.total()

    def evaluate(self, coefficients: Tensor, value_of: Link) -> Tensor:
        """Half a pass: sum (units,) over blocks of `value_of` (linear predictors, counts, weights), a value a unit."""
        kernels, value = self._kernels(coefficients), torch.zeros(len(coefficients), dtype=torch.float64)
        units = torch.arange(self.n_receivers, device=self.device)
        for first, last in self.chunks(self.n_receivers):
            eta = self._predictor(kernels, coefficients, first, last)[1]
            counts, weights, offset = (
                self._pick(array, first, last, units) for array in (self.targets, self.weights, self.offset)
            )
            value += value_of(eta if offset is None else eta + offset, counts, weights).cpu()
        return value

    def total_weight(self) -> Tensor:
        """Weight of each receiver's bins (receivers,), float64."""
        if self.weights is None:
            return torch.full((self.n_receivers,), float(self.frames), dtype=torch.float64, device=self.device)
        return self.weights.sum(-1, dtype=torch.float64).sum(0).expand(self.n_receivers).clone()

    def scored(self) -> Tensor:
        """Which bins of every block are scored: bool (blocks, bins)."""
        return self._rows(0, len(self.blocks))[1][:, self.history :]

    def reweighted(self, chosen: Tensor) -> "Design":
        """The same design with bins left out: `chosen` bool (blocks, 1, bins)."""
        other = copy.copy(self)
        other.weights = chosen if self.weights is None else self.weights * chosen
        return other

    def count_products(self, observed: Callable[[Tensor], Tensor]) -> Tensor:
        """Products of every column with the weighted counts (receivers, columns), float64."""
        products, units = Products(self, self.n_receivers), torch.arange(self.n_receivers, device=self.device)
        for first, last in self.chunks(self.n_receivers):
            weights = self._pick(self.weights, first, last, units)
            counts = observed(self.targets[first:last])
            products.add(self._with_lead(counts if weights is None else counts * weights), first, last)
        return products.total()

    def feature_sums(self) -> Tensor:
        """Sum of every column over the scored bins (columns,), float64."""
        products = Products(self, 1)
        for first, last in self.chunks(1):
            scored = self._rows(first, last)[1][:, None, self.history :]
            products.add(self._with_lead(scored), first, last)
        return products.total()[0]

    def predictors(self, coefficients: Tensor) -> Tensor:
        """Linear predictors (frames, receivers) at the scored frames, offset included; 0 elsewhere."""
        kernels = self._kernels(coefficients)
        result = torch.zeros(len(self.counts), self.n_receivers, dtype=self.dtype, device=self.device)
        for first, last in self.chunks(self.n_receivers):
            eta = self._predictor(kernels, coefficients, first, last)[1]
            if self.offset is not None:
                eta += self.offset[first:last]
            rows, inside = (values[:, self.history :] for values in self._rows(first, last))
            result[rows[inside]] = eta.transpose(1, 2)[inside]
        return result

    def matrix(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The design matrix itself, for some blocks: (blocks, bins, columns), and which bins are scored (blocks, bins).

        For what needs every column at once, such as information matrices; never asked for all blocks together.
        """
        scored = self._rows(first, last)[1][:, self.history :]
        shape = (last - first, self.blocks.scored)
        parts = [torch.ones(*shape, 1, dtype=self.dtype, device=self.device)]
        if self.dense is not None:
            parts.append(self.dense[first:last].transpose(1, 2))
        if self.n_senders:
            spectra = self.spectra(first, last)[..., None] * self.basis[:, None, None, :]
            columns = torch.fft.irfft(spectra, n=self.blocks.size, dim=0)[self.history :]
            parts.append(columns.permute(1, 0, 2, 3).reshape(*shape, -1))
        return torch.cat(parts, dim=2), scored

    def spectra(self, first: int, last: int) -> Tensor:
        """Transforms of the senders' counts in some blocks: (frequencies, blocks, senders)."""
        return self._transform_counts(first, last) if self._kept is None else self._kept[:, first:last]

    def correlate(self, spectra: Tensor, residual: Tensor) -> Tensor:
        """Residual's transform (blocks, units, frequencies) against every column: (basis, senders, units), float64."""
        # The conjugate goes to the residual, which is rearranged anyway; a few blocks at a time stay in the cache.
        turned = torch.empty(self.n_frequencies, *residual.shape[:2], dtype=self.complex, device=self.device)
        for first in range(0, len(residual), REARRANGED):
            part = slice(first, first + REARRANGED)
            torch.conj_physical(residual[part].permute(2, 0, 1), out=turned[:, part])
        cross = torch.bmm(spectra.transpose(1, 2), turned)
        # A real transform leaves out the negative frequencies: all but the first and the last (of an even size) count
        # twice.
        cross[1:-1] *= 2
        product = self.basis.T @ cross.reshape(self.n_frequencies, -1)
        return product.real.to(torch.float64).reshape(self.n_basis, self.n_senders, -1) / self.blocks.size

    def _with_lead(self, scored: Tensor) -> Tensor:
        """Values at scored bins (blocks, units, bins), with zeros in the lead-in before them."""
        return functional.pad(scored.to(self.dtype), (self.history, 0))

    def _pick(self, array: Tensor | None, first: int, last: int, units: Tensor) -> Tensor | None:
        """Some blocks and units of (blocks, units or 1, bins)."""
        if array is None or array.shape[1] == 1 or len(units) == self.n_receivers:
            return None if array is None else array[first:last]
        return array[first:last, units]

    def _basis_spectrum(self) -> Tensor:
        """Transform of the kernels (frequencies, basis), delayed by one bin: the present is never an input."""
        padded = np.zeros((self.blocks.size, self.n_basis))
        padded[1 : 1 + self.history] = self.data.kernel
        return torch.as_tensor(np.fft.rfft(padded, axis=0)).to(self.device, self.complex)

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        rows, inside = self.blocks.rows(first, last, len(self.counts))
        return torch.as_tensor(rows, device=self.device), torch.as_tensor(inside, device=self.device)

    def _gather(self, frames: Tensor, columns: np.ndarray | None = None) -> Tensor:
        """Values (frames, columns) at the scored bins of every block: (blocks, columns, bins), 0 where none is."""
        selected = frames if columns is None else frames[:, torch.as_tensor(columns, device=self.device)]
        shape = (len(self.blocks), selected.shape[1], self.blocks.scored)
        gathered = torch.zeros(shape, dtype=selected.dtype, device=self.device)
        for first, last in self.chunks(selected.shape[1]):
            rows, inside = self._rows(first, last)
            rows, inside = rows[:, self.history :], inside[:, self.history :]
            gathered[first:last] = (selected[rows] * inside[..., None]).transpose(1, 2)
        return gathered

    def _block_weights(self) -> Tensor | None:
        """Weights in blocks: (blocks, receivers or 1, bins); None where every bin of every block counts once."""
        full = bool((self.blocks.valid == self.blocks.scored).all())
        if self.data.weights is not None:
            weights = self.data.weights.to(self.device)
            return self._gather(weights if weights.dtype == torch.bool else weights.to(self.dtype))
        if full:
            return None
        return self.scored()[:, None]

    def _transform_counts(self, first: int, last: int) -> Tensor:
        spectra = torch.empty(self.n_frequencies, last - first, self.n_senders, dtype=self.complex, device=self.device)
        senders = torch.as_tensor(self.data.senders, device=self.device)
        for begin, end in self.chunks(self.n_senders):
            begin, end = max(begin, first), min(end, last)
            if begin >= end:
                continue
            rows, inside = self._rows(begin, end)
            counts = (self.counts[rows][..., senders] * inside[..., None]).transpose(1, 2).to(self.dtype)
            spectra[:, begin - first : end - first] = torch.fft.rfft(counts).permute(2, 0, 1)
        return spectra

    def _kernels(self, coefficients: Tensor) -> Tensor | None:
        """Transforms of the coupling filters: (frequencies, senders, units)."""
        if not self.n_senders:
            return None
        weights = coefficients[:, 1 + self.n_features :].reshape(-1, self.n_senders, self.n_basis)
        flat = weights.permute(2, 1, 0).reshape(self.n_basis, -1).to(self.complex)
        return (self.basis @ flat).reshape(self.n_frequencies, self.n_senders, -1)

    def _predictor(self, kernels: Tensor | None, coefficients: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """A chunk's (blocks, units, block size), and the view of its scored bins, which holds the linear predictor."""
        size, intercept = self.blocks.size, coefficients[:, 0].to(self.dtype)
        if kernels is None:
            full = intercept[:, None].expand(last - first, len(intercept), size).contiguous()
        else:
            product = torch.bmm(self.spectra(first, last), kernels)
            # A constant in time is the zero frequency: the intercept costs no pass over the bins.
            product[0] += size * intercept
            full = torch.fft.irfft(product, n=size, dim=0).permute(1, 2, 0)
        eta = full[..., self.history :]
        if self.dense is not None:
            eta += torch.matmul(coefficients[:, 1 : 1 + self.n_features].to(self.dtype), self.dense[first:last])
        return full, eta


class Products:
    """Products of the columns of `design` with residuals of some units, added up chunk by chunk."""

    def __init__(self, design: Design, units: int) -> None:
        self.design = design
        self.dense = torch.zeros(units, 1 + design.n_features, dtype=torch.float64, device=design.device)
        shape = (design.n_basis, design.n_senders, units)
        self.couplings = torch.zeros(shape, dtype=torch.float64, device=design.device)

    def add(self, residual: Tensor, first: int, last: int) -> None:
        """Add blocks `first` to `last` of a residual (blocks, units, block size), zero in the lead-in."""
        design, scored = self.design, residual[..., self.design.history :]
        self.dense[:, 0] += scored.sum(-1).sum(0, dtype=torch.float64)
        if design.dense is not None:
            columns = design.dense[first:last].transpose(1, 2)
            self.dense[:, 1:] += torch.matmul(scored, columns).sum(0, dtype=torch.float64)
        if design.n_senders:
            self.couplings += design.correlate(design.spectra(first, last), torch.fft.rfft(residual))

    def total(self) -> Tensor:
        """(units, columns) float64."""
        return torch.cat([self.dense, self.couplings.permute(2, 1, 0).reshape(len(self.dense), -1)], dim=1)
