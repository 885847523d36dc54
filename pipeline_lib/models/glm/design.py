"""The design matrix of a coupled GLM, as an operator: applied, transposed and correlated, never built.

One column is one sender's counts seen through one basis function. Both directions are convolutions, done block by block
in the frequency domain, so that a pass over the data costs the same for 8 basis functions as for 100 (specs/glm.md,
section 5). Features that are not counts (signals, time in the trial) are dense columns beside it.

Blocks are taken in chunks, whose products with the filters are one batched matrix multiplication, and a chunk in strips
whose transforms stay in the processor's cache.

Coefficients of a unit, in the order of their columns: intercept, features, sender 0's basis functions, sender 1's ...
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_lib.models.glm.blocks import Blocks, lay_blocks
from pipeline_lib.models.glm.data import Source
from pipeline_lib.models.glm.products import Products

CHUNK_BYTES = {"fast": 31 << 20, "low": 4 << 20}
"""Bytes of a chunk's spectra. An allocation above 32 MB would get fresh, zeroed pages from the kernel every time."""
STRIP_BYTES = {"cpu": 1 << 20, "cuda": 64 << 20}
"""Bytes of a strip's predictors: on a CPU, what fits in the second-level cache."""
FILTER_BYTES = {"fast": 1 << 30, "low": 16 << 20}
"""Bytes of the filters' spectra, which bound the block."""

Link = Callable[..., Tensor]


class Design:
    """Passes over `data` in one precision on one device.

    `memory`: "fast" keeps the counts' spectra (about 4.4 bytes a sender and bin in float32) and what else a pass needs;
    "low" reads the data again in every pass.
    """

    def __init__(
        self, data: Source, dtype: torch.dtype = torch.float32, device: str = "cpu", memory: str = "fast"
    ) -> None:
        self.data, self.dtype, self.device, self.memory = data, dtype, torch.device(device), memory
        self.complex = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.history, self.n_basis = data.kernel.shape
        self.n_senders, self.n_receivers = len(data.senders), len(data.receivers)
        self.n_features = data.n_features
        self.columns = 1 + self.n_features + self.n_senders * self.n_basis
        # Spectra of the filters, one a sender and receiver, grow with the block: short blocks need less memory.
        pairs = max(1, self.n_senders * self.n_receivers)
        largest = FILTER_BYTES[memory] // (pairs * dtype.itemsize)
        self.blocks: Blocks = lay_blocks(data.segments, self.history, self.n_senders, self.n_basis, largest)
        self.n_frequencies = self.blocks.size // 2 + 1
        self.basis = self._basis_spectrum()
        # A real transform leaves out the negative frequencies: all but the first and the last count twice.
        twice = torch.full((self.n_frequencies, 1), 2.0, dtype=dtype, device=self.device)
        twice[0] = twice[-1] = 1.0
        self._basis_back = (self.basis * (twice / self.blocks.size)).T.contiguous()
        self._chosen: Tensor | None = None
        self._kept: dict[str, Tensor] = {}
        if memory == "fast":
            whole = (0, len(self.blocks))
            names = ("targets", "features", "weights", "offset")
            found = {name: self._gather(name, *whole) for name in names}
            self._kept = {name: values for name, values in found.items() if values is not None}
            if self.n_senders:
                self._kept["spectra"] = self._transform_counts(*whole)

    @property
    def frames(self) -> int:
        """Scored bins."""
        return int(self.blocks.valid.sum())

    @property
    def plain(self) -> bool:
        """Every scored bin counts once and has no offset."""
        return self.data.plain and self._chosen is None

    def chunks(self, units: int) -> Iterator[tuple[int, int]]:
        """Ranges of blocks, of about one length, whose spectra for this many units keep within `CHUNK_BYTES`."""
        width = max(units, self.n_senders if self.memory == "low" else 1, 1)
        most = max(1, CHUNK_BYTES[self.memory] // (self.n_frequencies * width * self.complex.itemsize))
        step = -(-len(self.blocks) // -(-len(self.blocks) // most))
        return _ranges(0, len(self.blocks), step)

    def strips(self, first: int, last: int, units: int) -> Iterator[tuple[int, int]]:
        """Ranges of the blocks of a chunk whose predictors stay in the cache."""
        step = STRIP_BYTES[self.device.type] // (self.blocks.size * max(units, 1) * self.dtype.itemsize)
        return _ranges(first, last, max(1, step))

    def pass_over(
        self, coefficients: Tensor, units: Tensor, link_: Link, targets: bool = True
    ) -> tuple[Tensor, Tensor]:
        """One pass: linear predictors, `link_` on each strip of them, and back.

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
        value = torch.zeros(len(units), dtype=torch.float64, device=self.device)
        products = Products(self, len(units))
        for chunk in self.chunks(len(units)):
            spectra = self.spectra(*chunk)
            product = self._filtered(spectra, kernels, coefficients)
            products.begin(chunk, product)
            for strip in self.strips(*chunk, len(units)):
                full, eta = self._predictor(product, coefficients, units, chunk, strip)
                counts = self.targets(*strip, units) if targets else None
                value += link_(eta, counts, self.weights(*strip, units))
                full[..., : self.history] = 0.0
                products.add(full, *strip)
            products.end(spectra)
        return value, products.total()

    def evaluate(self, coefficients: Tensor, value_of: Link) -> Tensor:
        """Half a pass: sum (units,) over blocks of `value_of` (linear predictors, counts, weights), a value a unit."""
        value = torch.zeros(len(coefficients), dtype=torch.float64)
        units = torch.arange(self.n_receivers, device=self.device)
        for first, last, eta in self._predictors(coefficients):
            value += value_of(eta, self.targets(first, last, units), self.weights(first, last, units)).cpu()
        return value

    def predictors(self, coefficients: Tensor) -> Tensor:
        """Linear predictors (frames, receivers) at the scored frames, offset included; 0 elsewhere."""
        result = torch.zeros(self.data.frames, self.n_receivers, dtype=self.dtype, device=self.device)
        for first, last, eta in self._predictors(coefficients):
            rows, inside = (values[:, self.history :].to(self.device) for values in self._rows(first, last))
            result[rows[inside]] = eta.transpose(1, 2)[inside]
        return result

    def total_weight(self) -> Tensor:
        """Weight of each receiver's bins (receivers,), float64."""
        total = torch.zeros(self.n_receivers, dtype=torch.float64, device=self.device)
        if self.plain:
            return total + self.frames
        units = torch.arange(self.n_receivers, device=self.device)
        for first, last in self.chunks(self.n_receivers):
            weights = self.weights(first, last, units)
            scored = float((last - first) * self.blocks.scored)
            total += scored if weights is None else weights.sum(-1, dtype=torch.float64).sum(0)
        return total

    def scored(self) -> Tensor:
        """Which bins of every block are scored: bool (blocks, bins)."""
        return self._rows(0, len(self.blocks))[1][:, self.history :].to(self.device)

    def reweighted(self, chosen: Tensor) -> "Design":
        """The same design with bins left out: `chosen` bool (blocks, 1, bins)."""
        other = copy.copy(self)
        other._chosen = chosen if self._chosen is None else self._chosen & chosen
        return other

    def count_products(self, observed: Callable[[Tensor], Tensor]) -> Tensor:
        """Products of every column with the weighted counts (receivers, columns), float64."""
        units = torch.arange(self.n_receivers, device=self.device)

        def weighted(first: int, last: int) -> Tensor:
            counts, weights = observed(self.targets(first, last, units)), self.weights(first, last, units)
            return counts if weights is None else counts * weights

        return self.products(self.n_receivers, weighted)

    def feature_sums(self) -> Tensor:
        """Sum of every column over the bins that were seen (columns,), float64; the first is their number."""
        return self.products(1, lambda first, last: self.seen(first, last)[:, None])[0]

    def seen(self, first: int, last: int) -> Tensor:
        """Which bins of some blocks are scored and count for some receiver: bool (blocks, bins)."""
        weights = self.weights(first, last, torch.arange(self.n_receivers, device=self.device))
        return self._scored(first, last) if weights is None else (weights > 0).any(1)

    def unchanging(self, name: str) -> Tensor:
        """Which "senders" or "features" have one value in all that is read of them: bool (columns,)."""
        skip, lowest, highest = 0 if name == "senders" else self.history, None, None
        for chunk in self.chunks(1):
            values = self.data.read(name, self._rows(*chunk)[0][:, skip:])
            if values is None:
                break
            low, high = values.flatten(0, 1).aminmax(dim=0)
            lowest = low if lowest is None else torch.minimum(lowest, low)
            highest = high if highest is None else torch.maximum(highest, high)
        none = torch.zeros(0, dtype=torch.bool, device=self.device)
        return none if lowest is None or highest is None else (lowest == highest).to(self.device)

    def products(self, count: int, values_of: Callable[[int, int], Tensor]) -> Tensor:
        """Products of every column with values at the scored bins, (count, columns) float64.

        `values_of` (first, last) gives (blocks, count, bins) for these blocks, zero where a bin is not scored.
        """
        products = Products(self, count)
        for chunk in self.chunks(max(count, self.n_senders)):
            products.begin(chunk)
            for strip in self.strips(*chunk, count):
                products.add(functional.pad(values_of(*strip).to(self.dtype), (self.history, 0)), *strip)
            products.end(self.spectra(*chunk))
        return products.total()

    def matrix(self, first: int, last: int) -> Tensor:
        """The design matrix itself, for some blocks: (blocks, bins, columns); bins that are not scored mean nothing.

        For what needs every column at once, such as information matrices; never asked for all blocks together.
        """
        shape = (last - first, self.blocks.scored)
        parts = [torch.ones(*shape, 1, dtype=self.dtype, device=self.device)]
        features, spectra = self.features(first, last), self.spectra(first, last)
        if features is not None:
            parts.append(features.transpose(1, 2))
        if spectra is not None:
            columns = spectra[..., None] * self.basis[:, None, None, :]
            columns = torch.fft.irfft(columns, n=self.blocks.size, dim=0)[self.history :]
            parts.append(columns.permute(1, 0, 2, 3).reshape(*shape, -1))
        return torch.cat(parts, dim=2)

    def targets(self, first: int, last: int, units: Tensor) -> Tensor:
        """Counts of some receivers (blocks, units, bins), 0 where a bin is not scored."""
        targets = self._values("targets", first, last, units)
        assert targets is not None
        return targets

    def features(self, first: int, last: int) -> Tensor | None:
        """Inputs that are not counts (blocks, features, bins)."""
        return self._values("features", first, last)

    def offset(self, first: int, last: int, units: Tensor) -> Tensor | None:
        """What is added to the predictors of some receivers (blocks, units, bins)."""
        return self._values("offset", first, last, units)

    def weights(self, first: int, last: int, units: Tensor) -> Tensor | None:
        """Weights of bins (blocks, units or 1, bins); None where every bin of these blocks counts once."""
        weights = self._values("weights", first, last, units)
        if weights is None and bool((self.blocks.valid[first:last] < self.blocks.scored).any()):
            weights = self._scored(first, last)[:, None]
        if self._chosen is not None:
            chosen = self._chosen[first:last]
            weights = chosen if weights is None else weights * chosen
        return weights

    def spectra(self, first: int, last: int) -> Tensor | None:
        """Transforms of the senders' counts in some blocks: (frequencies, blocks, senders); None without senders."""
        if not self.n_senders:
            return None
        if "spectra" in self._kept:
            return self._kept["spectra"][:, first:last]
        return self._transform_counts(first, last)

    def correlate(self, spectra: Tensor, conjugate: Tensor) -> Tensor:
        """Products (basis, senders, units), float64, of every column with residuals.

        Of these the conjugate transforms (frequencies, blocks, units) are given.
        """
        cross = torch.bmm(spectra.transpose(1, 2), conjugate)
        product = self._basis_back @ cross.reshape(self.n_frequencies, -1)
        return product.real.to(torch.float64).reshape(self.n_basis, self.n_senders, -1)

    def _basis_spectrum(self) -> Tensor:
        """Transform of the kernels (frequencies, basis), delayed by one bin: the present is never an input."""
        padded = np.zeros((self.blocks.size, self.n_basis))
        padded[1 : 1 + self.history] = self.data.kernel
        return torch.as_tensor(np.fft.rfft(padded, axis=0)).to(self.device, self.complex)

    def _rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        rows, inside = self.blocks.rows(first, last)
        return torch.from_numpy(rows), torch.from_numpy(inside)

    def _scored(self, first: int, last: int) -> Tensor:
        valid = torch.from_numpy(self.blocks.valid[first:last, None]).to(self.device)
        return torch.arange(self.blocks.scored, device=self.device) < valid

    def _values(self, name: str, first: int, last: int, units: Tensor | None = None) -> Tensor | None:
        """(blocks, columns, bins) of some blocks, and of some units where columns are units."""
        if self.memory == "low":
            values = self._gather(name, first, last)
        else:
            values = self._kept[name][first:last] if name in self._kept else None
        if values is None or units is None or len(units) == self.n_receivers:
            return values
        return values[:, units]

    def _gather(self, name: str, first: int, last: int) -> Tensor | None:
        """Values of the data (blocks, columns, bins), 0 where a bin is not scored; of senders (also before scoring)."""
        rows, inside = self._rows(first, last)
        skip = 0 if name == "senders" else self.history
        values, inside = self.data.read(name, rows[:, skip:]), inside[:, skip:, None]
        if values is None:
            return None
        if not bool(inside.all()):
            values = values * inside
        as_it_is = name in ("senders", "targets") or values.dtype == torch.bool
        return values.to(self.device, values.dtype if as_it_is else self.dtype).transpose(1, 2).contiguous()

    def _transform_counts(self, first: int, last: int) -> Tensor:
        spectra = torch.empty(self.n_frequencies, last - first, self.n_senders, dtype=self.complex, device=self.device)
        for begin, end in self.strips(first, last, self.n_senders):
            counts = self._gather("senders", begin, end)
            assert counts is not None
            spectra[:, begin - first : end - first] = torch.fft.rfft(counts.to(self.dtype)).permute(2, 0, 1)
        return spectra

    def _kernels(self, coefficients: Tensor) -> Tensor | None:
        """Transforms of the coupling filters: (frequencies, senders, units)."""
        if not self.n_senders:
            return None
        weights = coefficients[:, 1 + self.n_features :].reshape(-1, self.n_senders, self.n_basis)
        flat = weights.permute(2, 1, 0).reshape(self.n_basis, -1).to(self.complex)
        return (self.basis @ flat).reshape(self.n_frequencies, self.n_senders, -1)

    def _filtered(self, spectra: Tensor | None, kernels: Tensor | None, coefficients: Tensor) -> Tensor | None:
        """Transforms of the linear predictors without features (frequencies, blocks, units)."""
        if spectra is None or kernels is None:
            return None
        product = torch.bmm(spectra, kernels)
        # A constant in time is the zero frequency: the intercept costs no pass over the bins.
        product[0] += self.blocks.size * coefficients[:, 0].to(self.dtype)
        return product

    def _predictor(
        self,
        product: Tensor | None,
        coefficients: Tensor,
        units: Tensor,
        chunk: tuple[int, int],
        strip: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        """A strip's (blocks, units, block size), and the view of its scored bins, which holds the linear predictor."""
        size, (first, last) = self.blocks.size, strip
        if product is None:
            intercept = coefficients[:, 0].to(self.dtype)
            full = intercept[:, None].expand(last - first, len(intercept), size).contiguous()
        else:
            part = product[:, first - chunk[0] : last - chunk[0]]
            full = torch.fft.irfft(part, n=size, dim=0).permute(1, 2, 0)
        eta = full[..., self.history :]
        features, offset = self.features(first, last), self.offset(first, last, units)
        if features is not None:
            eta += torch.matmul(coefficients[:, 1 : 1 + self.n_features].to(self.dtype), features)
        if offset is not None:
            eta += offset
        return full, eta

    def _predictors(self, coefficients: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """First and last block of every strip, and its linear predictors (blocks, receivers, bins)."""
        kernels, units = self._kernels(coefficients), torch.arange(self.n_receivers, device=self.device)
        for chunk in self.chunks(self.n_receivers):
            product = self._filtered(self.spectra(*chunk), kernels, coefficients)
            for strip in self.strips(*chunk, self.n_receivers):
                yield *strip, self._predictor(product, coefficients, units, chunk, strip)[1]


def _ranges(first: int, last: int, step: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + step, last)) for begin in range(first, last, step))
