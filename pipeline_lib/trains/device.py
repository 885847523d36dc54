"""Binning where a torch model lives: the events of a session are resident on its device."""

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from pipeline_lib.trains.store import Trains


class DeviceEvents:
    """The events of one session on a torch device: 6 bytes a spike, as in `Trains`."""

    def __init__(self, trains: "Trains", device: str | torch.device) -> None:
        self.trains, self.device = trains, torch.device(device)
        self.ticks = torch.from_numpy(trains.ticks).to(self.device)
        # torch has no arithmetic on uint16.
        unit = trains.unit.astype(np.int16 if trains.n_units < 2**15 else np.int32)
        self.unit = torch.from_numpy(unit).to(self.device)
        self._most: dict[int, int] = {}

    def bin_windows(self, start_ticks: np.ndarray, bins: int, bin_ticks: int) -> torch.Tensor:
        """Counts [window, bin, unit] on the device, equal to `binning.bin_windows`; uint8, or int32 where not enough.

        Every window gets as many places as the fullest window of this length has events (see `_most_events`): so the
        host need not know how many events a batch holds, and never waits for the device. Places without an event add
        0, each somewhere else: a GPU's additions to one cell wait for each other. Counts are integers, so their order
        does not matter.
        """
        trains, starts = self.trains, np.asarray(start_ticks, dtype=np.int64)
        dtype = torch.uint8 if trains.count_type(bin_ticks) == np.uint8 else torch.int32
        counts = torch.zeros(len(starts), bins, trains.n_units, dtype=dtype, device=self.device)
        if counts.numel() and len(trains.ticks):
            edges = np.stack([starts, starts + bins * bin_ticks]).clip(0, trains.duration_ticks)
            table = torch.from_numpy(np.concatenate([edges, starts[None]])).to(self.device, non_blocking=True)
            first, stop = torch.searchsorted(self.ticks, table[:2].to(self.ticks.dtype))
            event = first[:, None] + torch.arange(self._most_events(bins * bin_ticks), device=self.device)
            present = event < stop[:, None]
            event.clamp_(max=len(trains.ticks) - 1)
            index = (self.ticks[event] - table[2][:, None]).div_(bin_ticks, rounding_mode="floor")
            index += torch.arange(0, len(starts) * bins, bins, device=self.device)[:, None]
            index.mul_(trains.n_units).add_(self.unit[event])
            elsewhere = torch.arange(index.numel(), device=self.device).remainder_(counts.numel()).view_as(index)
            index = torch.where(present, index, elsewhere).view(-1)
            counts.view(-1).index_add_(0, index, present.view(-1).to(dtype))
        return counts

    def _most_events(self, span: int) -> int:
        """Events of the fullest window of `span` ticks anywhere in the session."""
        if span not in self._most:
            ticks = self.trains.ticks
            ends = np.searchsorted(ticks, ticks.astype(np.int64) + span)
            self._most[span] = int((ends - np.arange(len(ticks))).max())
        return self._most[span]
