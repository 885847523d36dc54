"""What a GLM is fitted to: counts, stretches of them, and the inputs beside them, read frame by frame.

The engine asks for frames a few blocks at a time (`Data.read`), so that a source need not be in memory: see `stream`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.glm.blocks import check_segments


class Source(ABC):
    """What the engine reads.

    `segments` (k, 2): first scored frame, frame after the last; `kernel` (history, basis) float64, row k weighs the
    count k + 1 bins ago; `senders`, `receivers`: units whose history is an input, units that are fitted; `frames`: how
    many, history and gaps included; `n_features`: inputs that are not counts; `plain`: every scored bin counts once,
    and there is no offset.
    """

    segments: np.ndarray
    kernel: np.ndarray
    senders: np.ndarray
    receivers: np.ndarray
    frames: int
    n_features: int
    plain: bool

    @abstractmethod
    def read(self, name: str, frames: Tensor) -> Tensor | None:
        """Values (blocks, bins, columns) at some frames (blocks, bins), or None where there is no such thing.

        `name`: "senders", "targets" (counts of the receivers), "features", "weights" or "offset". The frames of a block
        follow each other up to its last, which may be repeated.
        """

    def _columns(self, name: str, counts: Tensor) -> Tensor:
        """The columns of some counts that `name` asks for; anything else as it is."""
        chosen = {"senders": self.senders, "targets": self.receivers}.get(name)
        if chosen is None or np.array_equal(chosen, np.arange(counts.shape[-1])):
            return counts
        return counts[..., torch.from_numpy(chosen)]


@dataclass
class Data(Source):
    """What is fitted, in memory. Arrays may be given as numpy; they are kept as tensors.

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
        self.frames = len(self.counts)
        self.segments = check_segments(self.segments, len(self.kernel), self.frames)
        for name in ("senders", "receivers"):
            rows = np.asarray(getattr(self, name), dtype=np.int64)
            if len(rows) and not (rows.min() >= 0 and rows.max() < self.counts.shape[1]):
                raise InputError("data", name, rows.tolist()[:5], f"units 0 to {self.counts.shape[1] - 1}")
            setattr(self, name, rows)
        for name, columns in (("features", None), ("weights", len(self.receivers)), ("offset", len(self.receivers))):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, self._checked(name, torch.as_tensor(values), columns))
        self.n_features = 0 if self.features is None else self.features.shape[1]
        self.plain = self.weights is None and self.offset is None

    def read(self, name: str, frames: Tensor) -> Tensor | None:
        """See `Source.read`."""
        values = self.counts if name in ("senders", "targets") else getattr(self, name)
        if values is None:
            return None
        read = values.index_select(0, frames.reshape(-1)).reshape(*frames.shape, -1)
        return self._columns(name, read)

    def scored(self) -> Tensor:
        """Which frames are scored, bool (frames,)."""
        chosen = torch.zeros(self.frames, dtype=torch.bool)
        for start, stop in self.segments:
            chosen[start:stop] = True
        return chosen

    def _checked(self, name: str, values: Tensor, columns: int | None) -> Tensor | None:
        shape = (self.frames, values.shape[-1] if columns is None else columns)
        if tuple(values.shape) != shape:
            raise InputError("data", name, f"shape {tuple(values.shape)}", f"{shape}, as many frames as counts")
        scored = self.scored()
        bad = ~torch.isfinite(values.to(torch.float64)) & scored[:, None]
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            found = float(values[row, column])
            raise InputError("data", f"{name}, frame {row}, column {column}", found, "finite numbers")
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
