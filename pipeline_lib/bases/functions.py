"""Basis functions on the unit interval: the same numbers as NeMoS 0.2.8 (specs/glm.md, section 2).

A basis maps s in [0, 1] to `n` values. As a history kernel it is sampled at ``linspace(0, 1, window)``: s = 0 is one
bin ago, s = 1 is `window` bins ago. numpy only, so that figures and configuration checks need no torch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from pipeline_lib.errors import InputError

# One ulp-sized step past the last knot, so that s = 1 lies inside the last spline interval.
_KNOT_END = 1.0 + np.finfo(np.float64).eps


@dataclass(frozen=True)
class Basis(ABC):
    """`n` functions on [0, 1].

    >>> BSpline(5).kernel(window=20).shape
    (20, 5)
    """

    n: int

    def __post_init__(self) -> None:
        self._require(isinstance(self.n, int) and self.n >= self.smallest, "n", self.n, f"at least {self.smallest}")

    @property
    def smallest(self) -> int:
        """The fewest functions this basis can have."""
        return 1

    @abstractmethod
    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """Values at `s` (any shape, in [0, 1]): shape ``s.shape + (n,)``, float64."""

    def kernel(self, window: int) -> np.ndarray:
        """History kernels (window, n): row k weighs the count k + 1 bins ago."""
        self._require(window >= 1, "window", window, "at least one bin")
        return self.evaluate(np.linspace(0.0, 1.0, window))

    def _require(self, true: bool, field: str, found: object, accepted: str) -> None:
        if not true:
            raise InputError(type(self).__name__, field, found, accepted)


@dataclass(frozen=True)
class RawHistory(Basis):
    """One weight a lag, no smoothing: the identity. `n` is the window.

    >>> RawHistory(3).kernel(3)
    array([[1., 0., 0.],
           [0., 1., 0.],
           [0., 0., 1.]])
    """

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """One-hot at the nearest of `n` equally spaced points."""
        index = np.rint(np.asarray(s, dtype=np.float64) * (self.n - 1)).astype(np.int64)
        return np.eye(self.n)[index]

    def kernel(self, window: int) -> np.ndarray:
        """The identity (window, window); InputError unless ``n == window``."""
        self._require(window == self.n, "n", self.n, f"the window ({window} bins)")
        return np.eye(window)


@dataclass(frozen=True)
class RaisedCosineLinear(Basis):
    """Equally spaced raised cosines; a bump ends `width` peak spacings from its peak (Pillow et al., 2008).

    >>> RaisedCosineLinear(3).evaluate(np.array([0.0, 0.25, 0.5]))
    array([[1.        , 0.5       , 0.        ],
           [0.85355339, 0.85355339, 0.14644661],
           [0.5       , 1.        , 0.5       ]])
    """

    width: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        right = self.width > 1 and float(2 * self.width).is_integer()
        self._require(
            right, "width", self.width, "more than 1, a multiple of 0.5 (else the bumps do not sum to a constant)"
        )

    @property
    def smallest(self) -> int:
        """Two: the spacing of the peaks sets the width."""
        return 2

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """0.5 (1 + cos(pi (s - peak) / (spacing width))) up to width spacings from each peak, 0 elsewhere."""
        return _raised_cosines(np.asarray(s, dtype=np.float64), np.linspace(0.0, 1.0, self.n), self.width)


@dataclass(frozen=True)
class RaisedCosineLog(RaisedCosineLinear):
    """Raised cosines on a logarithmic axis: fine just after a spike, coarse long after (Pillow et al., 2008).

    `time_scaling` c sets the stretch u = log(c s + 1) / log(c + 1); with `decay_to_zero` the last bump ends at s = 1.

    >>> RaisedCosineLog(4).kernel(window=50).argmax(axis=0) + 1  # where the bumps peak, in bins after a spike
    array([ 1,  2,  5, 10])
    """

    time_scaling: float = 50.0
    decay_to_zero: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(0 < self.time_scaling < np.inf, "time_scaling", self.time_scaling, "a positive number")

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """Raised cosines of the stretched axis."""
        stretched = np.log1p(self.time_scaling * np.asarray(s, dtype=np.float64)) / np.log1p(self.time_scaling)
        last = 1.0 - self.width / (self.n + self.width - 1.0) if self.decay_to_zero else 1.0
        return _raised_cosines(stretched, np.linspace(0.0, last, self.n), self.width)


@dataclass(frozen=True)
class BSpline(Basis):
    """B-splines with clamped ends; `order` 4 is cubic. They sum to one everywhere (de Boor).

    >>> bool(np.allclose(BSpline(6).evaluate(np.linspace(0, 1, 7)).sum(axis=1), 1))
    True
    """

    order: int = 4

    @property
    def smallest(self) -> int:
        """As many as the order."""
        return max(1, self.order)

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """Splines over equally spaced inner knots."""
        inner = np.linspace(0.0, _KNOT_END, self.n - self.order + 2)
        knots = np.concatenate([np.zeros(self.order - 1), inner, np.full(self.order - 1, _KNOT_END)])
        return _splines(np.asarray(s, dtype=np.float64), knots, self.order)


@dataclass(frozen=True)
class CyclicBSpline(Basis):
    """B-splines on a circle: s = 0 and s = 1 are the same point. For phases, directions, time in a cycle.

    >>> ends = CyclicBSpline(6).evaluate(np.array([0.0, 1.0]))
    >>> bool(np.allclose(ends[0], ends[1]))
    True
    """

    order: int = 4

    @property
    def smallest(self) -> int:
        """As many as the order, and two."""
        return max(2, self.order)

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """Splines over knots continued periodically to the left; what sticks out on the left is folded to the right."""
        s = np.asarray(s, dtype=np.float64)
        knots = np.linspace(0.0, _KNOT_END, self.n + 1)
        extended = np.concatenate([knots[self.n - self.order + 1 : -1] - _KNOT_END, knots])
        values = _splines(s, extended, self.order)
        tail = s > extended[-self.order]
        values[tail] += _splines(s[tail] - _KNOT_END, extended, self.order)
        return values


@dataclass(frozen=True)
class Exponential(Basis):
    """Decaying exponentials exp(-rate s); `rates` default to `n` from 1 to 100, logarithmically spaced.

    With `orthogonal` the kernels of a window are replaced by an orthonormal basis of the same space (Gram-Schmidt from
    the slowest on), which conditions the fit but leaves the fitted filter as it is.

    >>> Exponential(2, rates=(1.0, 10.0)).kernel(window=3).round(3)
    array([[1.   , 1.   ],
           [0.607, 0.007],
           [0.368, 0.   ]])
    """

    rates: tuple[float, ...] = ()
    orthogonal: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(len(self.rates) in (0, self.n), "rates", self.rates, f"{self.n} of them, or none")
        right = all(0 < rate < np.inf for rate in self.rates) and len(set(self.rates)) == len(self.rates)
        self._require(right, "rates", self.rates, "positive numbers, each once")

    def evaluate(self, s: np.ndarray) -> np.ndarray:
        """exp(-rate s) for every rate (not orthogonalised: that depends on the sampling)."""
        rates = np.array(self.rates) if self.rates else np.geomspace(1.0, 100.0, self.n)
        return np.exp(-np.asarray(s, dtype=np.float64)[..., None] * rates)

    def kernel(self, window: int) -> np.ndarray:
        """Sampled exponentials (window, n), orthonormal columns if `orthogonal`."""
        sampled = super().kernel(window)
        if not self.orthogonal:
            return sampled
        self._require(window >= self.n, "window", window, f"at least n = {self.n} bins to orthogonalise")
        columns, upper = np.linalg.qr(sampled)
        return columns * np.sign(np.diag(upper))


BASES: dict[str, type[Basis]] = {
    "raw": RawHistory,
    "raised_cosine_linear": RaisedCosineLinear,
    "raised_cosine_log": RaisedCosineLog,
    "bspline": BSpline,
    "cyclic_bspline": CyclicBSpline,
    "exponential": Exponential,
}


def basis_by_name(name: str, n: int, window: int) -> Basis:
    """The basis a configuration names; `raw` takes its size from the window. InputError for an unknown name.

    >>> basis_by_name("raised_cosine_log", n=8, window=20).n, basis_by_name("raw", n=8, window=20).n
    (8, 20)
    """
    if name not in BASES:
        raise InputError("config", "basis", repr(name), f"one of {', '.join(BASES)}")
    return BASES[name](window if name == "raw" else n)


def kernel_rank(kernel: np.ndarray) -> int:
    """Rank of kernels (window, n): less than n means that a filter has no unique weights (too many functions).

    >>> kernel_rank(BSpline(8).kernel(window=20)), kernel_rank(BSpline(8).kernel(window=4))
    (8, 4)
    """
    return int(np.linalg.matrix_rank(kernel))


def _raised_cosines(s: np.ndarray, peaks: np.ndarray, width: float) -> np.ndarray:
    spacing = peaks[1] - peaks[0]
    return 0.5 * (1.0 + np.cos(np.clip(np.pi * (s[..., None] - peaks) / (spacing * width), -np.pi, np.pi)))


def _splines(s: np.ndarray, knots: np.ndarray, order: int) -> np.ndarray:
    """All B-splines of `order` over `knots` at `s`, 0 outside the knots (Cox-de Boor recursion)."""
    s = s[..., None]
    values = ((knots[:-1] <= s) & (s < knots[1:])).astype(np.float64)
    for degree in range(1, order):
        rise, fall = knots[degree:-1] - knots[: -degree - 1], knots[degree + 1 :] - knots[1:-degree]
        with np.errstate(divide="ignore", invalid="ignore"):
            up = np.where(rise > 0, (s - knots[: -degree - 1]) / rise, 0.0)
            down = np.where(fall > 0, (knots[degree + 1 :] - s) / fall, 0.0)
        values = up * values[..., :-1] + down * values[..., 1:]
    return values
