"""Cutting recorded stretches into overlapping blocks of one length, so that one FFT size serves all of them.

Overlap-save (Oppenheim & Schafer, section 8.7): a block of `size` frames gives ``size - history`` frames of a causal
convolution exactly; its first `history` frames are read but not scored. A block never reaches across a segment.
"""

from dataclasses import dataclass

import numpy as np

from pipeline_lib.errors import InputError

LARGEST_BLOCK = 8192


@dataclass(frozen=True)
class Blocks:
    """`starts` (blocks,): first frame each reads; `valid` (blocks,): frames it scores, after `history` others."""

    size: int
    history: int
    starts: np.ndarray
    valid: np.ndarray

    @property
    def scored(self) -> int:
        """Frames a block can score at most."""
        return self.size - self.history

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame numbers (blocks, size) of some blocks, and which belong to the block; the others repeat its last."""
        offsets = np.arange(self.size)
        length = self.history + self.valid[first:last, None]
        return self.starts[first:last, None] + np.minimum(offsets, length - 1), offsets < length


def check_segments(segments: np.ndarray, history: int, frames: int) -> np.ndarray:
    """`segments` (k, 2) as int64: first scored frame and the one after the last, `history` frames before it readable.

    Raises
    ------
    InputError : no segment, one that is empty, reaches outside the frames or whose history does; overlapping scored
        stretches (a bin would count twice).
    """
    segments = np.asarray(segments, dtype=np.int64).reshape(-1, 2)
    if len(segments) == 0:
        raise InputError("segments", "rows", "none", "at least one stretch to fit")
    bad = (segments[:, 1] <= segments[:, 0]) | (segments[:, 0] < history) | (segments[:, 1] > frames)
    if bad.any():
        row = int(np.argmax(bad))
        accepted = f"start < stop, {history} bins of history before start, stop <= {frames}"
        raise InputError("segments", f"row {row}", segments[row].tolist(), accepted)
    ordered = segments[np.argsort(segments[:, 0])]
    if (ordered[1:, 0] < ordered[:-1, 1]).any():
        row = int(np.argmax(ordered[1:, 0] < ordered[:-1, 1]))
        found = ordered[row : row + 2].tolist()
        raise InputError("segments", "overlap", found, "segments that do not share scored bins")
    return segments


def lay_blocks(segments: np.ndarray, history: int, senders: int, basis: int, largest: int = LARGEST_BLOCK) -> Blocks:
    """Blocks that cover `segments`, of the size that costs least for this many senders and basis functions.

    Many short trials get one block each; a long recording gets long blocks, up to about `largest` frames.
    """
    lengths = segments[:, 1] - segments[:, 0]
    longest = int(lengths.max())
    sizes = [size for size in _fast_sizes() if history < size <= max(largest, 3 * history)]
    # No use for a block much longer than the longest segment: keep the smallest that holds it and everything below.
    whole = [size for size in sizes if size >= history + longest]
    sizes = [size for size in sizes if not whole or size <= whole[0]] or [2 * (history + 1)]

    def cost(size: int) -> float:
        blocks = int(np.ceil(lengths / (size - history)).sum())
        # Measured on one core: transforms and link cost as much as ~110 senders; building kernels is memory-bound.
        return size * (blocks * (senders + 110.0) + 5.0 * senders * basis)

    size = min(sizes, key=cost)
    step = size - history
    counts = -(-lengths // step)
    segment = np.repeat(np.arange(len(segments)), counts)
    within = np.arange(len(segment)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = segments[segment, 0] - history + within * step
    valid = np.minimum(step, lengths[segment] - within * step)
    return Blocks(size, history, starts, valid)


def _fast_sizes() -> list[int]:
    """Even lengths with no prime factor above 5, up to the largest block."""
    powers = [2**a * 3**b * 5**c for a in range(1, 14) for b in range(4) for c in range(3)]
    return sorted(size for size in powers if 16 <= size <= LARGEST_BLOCK)
