"""The pictures that an animal saw: frames, and when each was on the screen.

On disk a Zarr group: `frames` (n, height, width) uint8, `onset` (m,) float64 s, `frame` (m,) int32, a row of `frames`
for every onset.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Stimulus:
    """Frames (n, height, width) uint8; onset (m,) s, non-decreasing; frame (m,) int32, rows of the frames."""

    frames: np.ndarray
    onset: np.ndarray
    frame: np.ndarray

    def write(self, path: Path | str) -> None:
        """Write as a Zarr group; `path` must not exist."""
        import zarr

        group = zarr.create_group(str(path), zarr_format=3)
        chunks = (min(64, len(self.frames)), *self.frames.shape[1:])
        group.create_array("frames", data=self.frames, chunks=chunks)
        group.create_array("onset", data=self.onset)
        group.create_array("frame", data=self.frame)

    @classmethod
    def read(cls, path: Path | str) -> "Stimulus":
        """Read what `write` wrote."""
        import zarr

        group = zarr.open_group(str(path), mode="r")
        arrays: dict[str, Any] = {name: array[:] for name, array in group.arrays()}
        return cls(**arrays)
