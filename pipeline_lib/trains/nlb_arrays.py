"""Arrays of the Neural Latents Benchmark, cut and written in one way for its data and for submissions to it."""

from typing import TYPE_CHECKING

import numpy as np

from pipeline_lib.trains.splits import Split

if TYPE_CHECKING:
    import h5py


def nlb_parts(values: np.ndarray, split: Split, session: str, name: str) -> dict[str, np.ndarray]:
    """`values` [S, T, N] by what the benchmark calls their units and bins (`{name}_heldin`, `{name}_heldout_forward`,
    ...), float32; without those that have no unit or no bin."""
    shown, heldout = values.shape[1] - split.forward_bins, np.sort(split.heldout[session])
    units = {"heldin": np.setdiff1d(np.arange(values.shape[2]), heldout), "heldout": heldout}
    time = {"": slice(None, shown), "_forward": slice(shown, None)}
    parts = {f"{name}_{u}{t}": values[:, time[t]][:, :, units[u]] for t in time for u in units}
    return {key: np.ascontiguousarray(part, dtype=np.float32) for key, part in parts.items() if part.size}


def write_nlb(file: "h5py.File", parts: dict[str, np.ndarray], group: str = "") -> None:
    """Add arrays to a file of the benchmark; the same arrays give the same bytes."""
    for name, part in parts.items():
        file.create_dataset(f"{group}/{name}", data=part, compression="gzip", shuffle=True, track_times=False)
