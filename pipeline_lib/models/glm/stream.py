"""A session read from its trains as a fit goes along, for sessions whose counts would not fit in memory."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.models.contract import FitData
from pipeline_lib.models.glm.blocks import check_segments
from pipeline_lib.models.glm.data import Source
from pipeline_lib.models.glm.frames import Frames, read_blocks

CHECKED = 4096
"""Frames whose observation is looked up together."""


class StreamedData(Source):
    """As `Data`, with counts binned anew from the spikes whenever they are asked for.

    Parameters
    ----------
    data, session, frames : what to read.
    kernel, senders : see `Source`; receivers are all units.
    features_of : frames (n,) -> features (n, columns) float32, or None where there are none.
    n_features : how many columns.
    """

    def __init__(
        self,
        data: FitData,
        session: str,
        frames: Frames,
        kernel: np.ndarray,
        senders: np.ndarray,
        features_of: Callable[[np.ndarray], np.ndarray | None],
        n_features: int,
    ) -> None:
        self.trains, self.session, self.layout = data, session, frames
        self.frames, self.n_features = len(frames), n_features
        self.segments, self.kernel = check_segments(frames.segments, len(kernel), self.frames), kernel
        self.senders = np.asarray(senders, dtype=np.int64)
        self.receivers = np.arange(data.trains[session].n_units)
        self._features_of = features_of
        self.plain = self._everything_observed()

    def read(self, name: str, frames: Tensor) -> Tensor | None:
        """See `Source.read`."""
        wanted = frames.numpy()
        if name == "features":
            features = self._features_of(wanted.ravel()) if self.n_features else None
            return None if features is None else torch.from_numpy(features).reshape(*wanted.shape, -1)
        if name == "offset" or (name == "weights" and self.plain):
            return None
        offsets = wanted - wanted[:, :1]
        counts, observed = read_blocks(self.trains, self.session, self.layout, wanted[:, 0], int(offsets.max()) + 1)
        values = observed if name == "weights" else counts
        if (offsets != np.arange(offsets.shape[1])).any():
            values = np.take_along_axis(values, offsets[:, :, None], axis=1)
        kind = values if values.dtype in (np.uint8, np.bool_) else values.astype(np.int32)
        return self._columns(name, torch.from_numpy(np.ascontiguousarray(kind)))

    def _everything_observed(self) -> bool:
        for start, stop in self.segments:
            for first in np.arange(start, stop, CHECKED):
                bins = int(min(CHECKED, stop - first))
                if not read_blocks(self.trains, self.session, self.layout, np.array([first]), bins)[1].all():
                    return False
        return True
