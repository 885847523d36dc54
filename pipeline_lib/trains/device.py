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
        wide = np.int16 if trains.n_units < 2**15 else np.int32  # torch has no arithmetic on uint16
        self.ticks = torch.from_numpy(trains.ticks).to(self.device)
        self.unit = torch.from_numpy(trains.unit.astype(wide)).to(self.device)

    def bin_windows(self, start_ticks: np.ndarray, bins: int, bin_ticks: int) -> torch.Tensor:
        """Counts [window, bin, unit] on the device, equal to `binning.bin_windows`; uint8, or int32 where not enough.

        The bounds of the windows are found on the host, which holds the ticks too, so that the host never waits for
        the device. Counts are integers, so the order in which a GPU adds them does not matter.
        """
        trains, starts = self.trains, np.asarray(start_ticks, dtype=np.int64)
        dtype = torch.uint8 if trains.count_type(bin_ticks) == np.uint8 else torch.int32
        counts = torch.zeros((len(starts), bins, trains.n_units), dtype=dtype, device=self.device)
        bounds = starts[:, None] + np.array([0, bins * bin_ticks])
        bounds = np.searchsorted(trains.ticks, bounds.clip(0, trains.duration_ticks).astype(trains.ticks.dtype))
        lengths = bounds[:, 1] - bounds[:, 0]
        total = int(lengths.sum())
        # One small transfer: for each window, its number of events, the shift from a position in the batch to one in
        # the session, and where it would start if the windows of the batch lay end to end.
        table = np.stack(
            [lengths, bounds[:, 0] - np.cumsum(lengths) + lengths, starts - np.arange(len(starts)) * bins * bin_ticks]
        )
        lengths_, shift, origin = torch.from_numpy(table).to(self.device, non_blocking=True)
        window = torch.repeat_interleave(lengths_, output_size=total)
        event = torch.arange(total, device=self.device) + shift[window]
        index = (self.ticks[event] - origin[window]) // bin_ticks
        index = index * trains.n_units + self.unit[event]
        counts.view(-1).index_add_(0, index, torch.ones(1, dtype=dtype, device=self.device).expand(total))
        return counts
