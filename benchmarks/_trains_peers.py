"""What the peers take for the same: pynapple, torch-brain and iblutil, each measure in a process of its own.

Runs in any environment that has numpy and the peer: a function a measure, which is given the folder of the session.
"""

from pathlib import Path

import numpy as np
from _trains_session import BIN, PART, SECONDS, UNITS, WINDOW, cpu, each, peak, per_unit, time_sorted, window_starts


def pynapple_dense(folder: Path) -> dict[str, float]:
    import pynapple

    before = peak()
    group = pynapple.TsGroup({unit: pynapple.Ts(times[times < PART]) for unit, times in enumerate(per_unit(folder))})
    epoch = pynapple.IntervalSet(0, PART)
    return {"part": cpu(lambda: group.count(BIN, epoch), 3), "part peak": peak() - before}


def pynapple_windows(folder: Path) -> dict[str, float]:
    import pynapple

    group = pynapple.TsGroup({unit: pynapple.Ts(times) for unit, times in enumerate(per_unit(folder))})
    starts = window_starts(1)[0, :16]
    epochs = [pynapple.IntervalSet(start, start + WINDOW) for start in starts]
    return {"windows": len(epochs) / cpu(lambda: each(lambda epoch: group.count(BIN, epoch), epochs), 3)}


def iblutil_dense(folder: Path) -> dict[str, float]:
    from iblutil.numerical import bincount2D

    times, unit = time_sorted(folder, PART)
    before = peak()

    def dense() -> object:
        return bincount2D(times, unit, xbin=BIN, ybin=1, xlim=[0, PART], ylim=[0, UNITS - 1])

    return {"part": cpu(dense, 3), "part peak": peak() - before}


def iblutil_windows(folder: Path) -> dict[str, float]:
    from iblutil.numerical import bincount2D

    times, unit = time_sorted(folder)
    starts = window_starts(4).ravel()

    def window(start: float) -> object:
        own = slice(*np.searchsorted(times, [start, start + WINDOW]))
        limits = [start, start + WINDOW]
        return bincount2D(times[own], unit[own], xbin=BIN, ybin=1, xlim=limits, ylim=[0, UNITS - 1])

    return {"windows": len(starts) / cpu(lambda: each(window, starts))}


def _torch_brain_data(folder: Path, stop: float) -> object:
    from torch_brain.data import Data, Interval, IrregularTimeSeries

    times, unit = time_sorted(folder, stop)
    spikes = IrregularTimeSeries(timestamps=times, unit_index=unit, domain=Interval(0.0, stop))
    return Data(spikes=spikes, domain=Interval(0.0, stop))


def torch_brain_dense(folder: Path) -> dict[str, float]:
    from torch_brain.utils import bin_spikes

    data = _torch_brain_data(folder, PART)
    before = peak()
    return {"part": cpu(lambda: bin_spikes(data.spikes, UNITS, BIN), 3), "part peak": peak() - before}


def torch_brain_store(folder: Path) -> dict[str, float]:
    import h5py

    data = _torch_brain_data(folder, SECONDS)
    spikes, path = len(data.spikes.timestamps), folder / "torch_brain" / "benchmark.h5"
    path.parent.mkdir(exist_ok=True)

    def write() -> None:
        with h5py.File(path, "w") as file:
            data.to_hdf5(file, serialize_fn_map=None)

    return {"seconds": cpu(write, 3), "bytes": path.stat().st_size / spikes}


def torch_brain_windows(folder: Path) -> dict[str, float]:
    from torch_brain.datasets import Dataset, DatasetIndex
    from torch_brain.utils import bin_spikes

    dataset = Dataset(folder / "torch_brain")
    eager = _torch_brain_data(folder, SECONDS)
    starts = window_starts(10).ravel()

    def lazy(start: float) -> object:
        return bin_spikes(dataset[DatasetIndex("benchmark", start, start + WINDOW)].spikes, UNITS, BIN)

    def resident(start: float) -> object:
        return bin_spikes(eager.spikes.slice(start, start + WINDOW), UNITS, BIN)

    return {
        name: len(starts) / cpu(lambda one=one: each(one, starts), 3)
        for name, one in (("lazy", lazy), ("eager", resident))
    }


PEERS = (
    pynapple_dense,
    iblutil_dense,
    torch_brain_dense,
    torch_brain_store,
    torch_brain_windows,
    pynapple_windows,
    iblutil_windows,
)
