"""Features: what a GLM's design matrix would hold, by name. The engine of `models.glm` never builds this matrix."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline_lib.bases.functions import Basis
from pipeline_lib.errors import InputError

CAUSALITIES = ("causal", "acausal", "anti-causal")


class Features(ABC):
    """Columns made from one or more inputs. ``a + b`` puts columns side by side, ``a * b`` takes all products."""

    label: str

    @property
    def n_inputs(self) -> int:
        """How many inputs `compute` takes."""
        return 1

    @abstractmethod
    def compute(self, *inputs: np.ndarray, epochs: np.ndarray | None = None) -> np.ndarray:
        """Columns (bins, features), float64; NaN where an input is outside its bounds or its window is not full.

        `inputs`: one array (bins,) or (bins, units) each; `epochs` (k, 2): first bin and bin after the last of each
        stretch that a window must not cross (default: one).
        """

    @abstractmethod
    def shapes(self, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
        """Shape of every part's coefficients by label, in the order of the columns."""

    def split_by_feature(self, coefficients: np.ndarray, *inputs: np.ndarray, axis: int = 0) -> dict[str, np.ndarray]:
        """Cut `coefficients` along `axis` into parts by label, that axis shaped as `shapes` says.

        `inputs` need only have the right number of columns. InputError where the axis has another length.
        """
        shapes = self.shapes(*inputs)
        sizes = [int(np.prod(shape)) for shape in shapes.values()]
        axis = axis % coefficients.ndim
        if coefficients.shape[axis] != sum(sizes):
            raise InputError("coefficients", f"axis {axis}", coefficients.shape[axis], f"{sum(sizes)} features")
        parts = np.split(coefficients, np.cumsum(sizes)[:-1], axis=axis)
        before, after = coefficients.shape[:axis], coefficients.shape[axis + 1 :]
        return {
            name: part.reshape(before + shape + after)
            for (name, shape), part in zip(shapes.items(), parts, strict=True)
        }

    def labels(self, *inputs: np.ndarray) -> list[str]:
        """A name a column: ``history[3, 0]`` is sender 3, basis function 0."""
        names = []
        for name, shape in self.shapes(*inputs).items():
            names += [f"{name}{list(index)}" for index in np.ndindex(shape)]
        return names

    def __add__(self, other: "Features") -> "Features":
        return Sum((*_terms(self, Sum), *_terms(other, Sum)))

    def __mul__(self, other: "Features") -> "Features":
        return Product((*_terms(self, Product), *_terms(other, Product)))


@dataclass(frozen=True)
class Convolve(Features):
    """Recent counts of every unit, weighed by a basis over `window` bins.

    Row t of ``compute`` is sum_k kernel[k] counts[t - 1 - k] (causal). The window moved is centred on t (acausal:
    counts[t + window // 2 - k]) or lies after it (anti-causal: counts[t + window - k]). Column = unit * n + function.

    >>> from pipeline_lib.bases import RawHistory
    >>> Convolve(RawHistory(2), window=2).compute(np.array([1, 0, 3, 0])).tolist()
    [[nan, nan], [nan, nan], [0.0, 1.0], [3.0, 0.0]]
    """

    basis: Basis
    window: int
    label: str = "history"
    causality: str = "causal"

    def __post_init__(self) -> None:
        if self.causality not in CAUSALITIES:
            raise InputError("Convolve", "causality", repr(self.causality), f"one of {', '.join(CAUSALITIES)}")
        self.basis.kernel(self.window)

    def shapes(self, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
        """(units, n) for counts of several units, (n,) for one."""
        return {self.label: (*inputs[0].shape[1:2], self.basis.n)}

    def compute(self, *inputs: np.ndarray, epochs: np.ndarray | None = None) -> np.ndarray:
        """See `Features.compute`; an epoch shorter than the window is all NaN."""
        _require_inputs(self, inputs)
        counts = np.asarray(inputs[0], dtype=np.float64).reshape(len(inputs[0]), -1)
        kernel = self.basis.kernel(self.window)
        features = np.full((len(counts), counts.shape[1] * self.basis.n), np.nan)
        # Offset of the newest bin that row t sees, relative to t - window + 1.
        shift = {"causal": self.window, "acausal": (self.window - 1) // 2, "anti-causal": -1}[self.causality]
        for start, stop in np.array([[0, len(counts)]]) if epochs is None else np.asarray(epochs):
            if stop - start < self.window:
                continue
            stretches = np.lib.stride_tricks.sliding_window_view(counts[start:stop], self.window, axis=0)
            values = (stretches @ kernel[::-1]).reshape(len(stretches), -1)
            rows = np.arange(start, start + len(values)) + shift
            inside = (rows >= start) & (rows < stop)
            features[rows[inside]] = values[inside]
        return features


@dataclass(frozen=True)
class Evaluate(Features):
    """A task variable seen through a basis: `bounds` (low, high) map to [0, 1]; outside them all columns are NaN.

    The bounds are asked for, not taken from the data: training and test data must share one axis.

    >>> from pipeline_lib.bases import BSpline
    >>> Evaluate(BSpline(5), bounds=(0, 40)).compute(np.array([0.0, 20.0, 50.0])).shape  # 50 cm/s is outside: NaN
    (3, 5)
    """

    basis: Basis
    bounds: tuple[float, float]
    label: str = "variable"

    def __post_init__(self) -> None:
        if not self.bounds[0] < self.bounds[1]:
            raise InputError("Evaluate", "bounds", self.bounds, "low < high")

    def shapes(self, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
        """(n,)."""
        return {self.label: (self.basis.n,)}

    def compute(self, *inputs: np.ndarray, epochs: np.ndarray | None = None) -> np.ndarray:
        """See `Features.compute`."""
        _require_inputs(self, inputs)
        low, high = self.bounds
        s = (np.asarray(inputs[0], dtype=np.float64).ravel() - low) / (high - low)
        inside = (s >= 0) & (s <= 1)
        values = np.full((len(s), self.basis.n), np.nan)
        values[inside] = self.basis.evaluate(s[inside])
        return values


@dataclass(frozen=True)
class Composed(Features):
    """Features made of several others, whose inputs follow one another."""

    terms: tuple[Features, ...]

    @property
    def n_inputs(self) -> int:
        """Those of all terms."""
        return sum(term.n_inputs for term in self.terms)

    def dealt(self, inputs: Sequence[np.ndarray]) -> list[tuple[Features, tuple[np.ndarray, ...]]]:
        """Every term with its own inputs."""
        ends = np.cumsum([0] + [term.n_inputs for term in self.terms])
        own = [tuple(inputs[first:last]) for first, last in pairwise(ends)]
        return list(zip(self.terms, own, strict=True))


@dataclass(frozen=True)
class Sum(Composed):
    """Columns of several features side by side."""

    label: str = "sum"

    def __post_init__(self) -> None:
        labels = [term.label for term in self.terms]
        repeated = [label for label in labels if labels.count(label) > 1]
        if repeated:
            raise InputError("features", "label", f"{repeated[0]!r} twice", "a label of its own for every part")

    def shapes(self, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
        """Those of the terms, in order."""
        merged: dict[str, tuple[int, ...]] = {}
        for term, own in self.dealt(inputs):
            merged |= term.shapes(*own)
        return merged

    def compute(self, *inputs: np.ndarray, epochs: np.ndarray | None = None) -> np.ndarray:
        """See `Features.compute`."""
        _require_inputs(self, inputs)
        return np.concatenate([term.compute(*own, epochs=epochs) for term, own in self.dealt(inputs)], axis=1)


@dataclass(frozen=True)
class Product(Composed):
    """Every product of one column of each term, the last term's index running fastest."""

    @property
    def label(self) -> str:  # type: ignore[override]
        """The terms' labels, joined."""
        return " * ".join(term.label for term in self.terms)

    def shapes(self, *inputs: np.ndarray) -> dict[str, tuple[int, ...]]:
        """One part, an axis a term (a term with several parts has them flattened)."""
        sizes = []
        for term, own in self.dealt(inputs):
            sizes.append(sum(int(np.prod(shape)) for shape in term.shapes(*own).values()))
        return {self.label: tuple(sizes)}

    def compute(self, *inputs: np.ndarray, epochs: np.ndarray | None = None) -> np.ndarray:
        """See `Features.compute`."""
        _require_inputs(self, inputs)
        product = np.ones((len(inputs[0]), 1))
        for term, own in self.dealt(inputs):
            product = (product[:, :, None] * term.compute(*own, epochs=epochs)[:, None, :]).reshape(len(product), -1)
        return product


def _terms(features: Features, kind: type[Composed]) -> tuple[Features, ...]:
    """The terms of a sum of sums (or product of products), so that composition is associative."""
    return features.terms if isinstance(features, kind) else (features,)


def _require_inputs(features: Features, inputs: Sequence[np.ndarray]) -> None:
    if len(inputs) != features.n_inputs:
        raise InputError(features.label, "inputs", len(inputs), f"{features.n_inputs} arrays")
    lengths = {len(values) for values in inputs}
    if len(lengths) > 1:
        raise InputError(features.label, "inputs", f"lengths {sorted(lengths)}", "one length, bins")
