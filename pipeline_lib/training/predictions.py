"""predictions.zarr: what a fitted model expects in the validation and test windows; all that scores are made of.

A group a session::

    {session}/rates      float32 [S, T, N], expected spikes a bin, all units; NaN past the end of a shorter window
    {session}/sample     int64 [S], rows of the split
    {session}/latents    float32 [S, T, dimensions], where the model has latents; NaN past the end of a shorter window
    {session}/extras/{name}     float32 [S, ...], whatever else the model gives a window
    {session}/couplings/{filters,strength}     where the model has couplings; attribute bin_size (ms)

The same content gives the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline_lib.models.contract import FitData, Model
from pipeline_lib.training.run import FitError, Run
from pipeline_lib.trains.splits import PREDICTED

if TYPE_CHECKING:
    import pandas as pd
    import zarr

CHUNK = 64
"""Windows in a chunk of the store."""
BLOCK_BYTES = 2**27
"""Bytes of rates predicted at once, by whole chunks."""


def write_predictions(
    path: Path, model: Model, data: FitData, attributes: dict[str, Any], run: Run, parts: Sequence[str] = PREDICTED
) -> None:
    """Predict the windows of some parts of every session and write them as a Zarr store; `path` is new.

    Raises
    ------
    FitError : rates of a wrong shape, not finite, or negative; model, session and unit are named.
    Interrupted : the process was asked to end.
    """
    import zarr

    root = zarr.create_group(str(path), zarr_format=3, attributes=attributes)
    for session in data.sessions:
        rows = data.split.samples
        samples = rows[(rows["session"] == session) & rows["split"].isin(parts)]
        group = root.create_group(session)
        _create(group, "sample", samples.index.to_numpy(dtype=np.int64))
        _write_rates(group, model, data, session, samples, run)
        if len(samples):
            _write_extras(group, model, data, session, samples)
        couplings = model.couplings(session)
        if couplings is not None:
            inner = group.create_group("couplings", attributes={"bin_size": couplings.bin_size})
            _create(inner, "filters", couplings.filters.astype(np.float32))
            _create(inner, "strength", couplings.strength.astype(np.float32))


def _write_rates(
    group: "zarr.Group", model: Model, data: FitData, session: str, samples: "pd.DataFrame", run: Run
) -> None:
    units = data.trains[session].n_units
    longest = int(samples["bins"].max()) if len(samples) else 0
    chunks = (min(CHUNK, max(len(samples), 1)), max(longest, 1), units)
    shape = (len(samples), longest, units)
    rates = group.create_array(
        "rates", shape=shape, chunks=chunks, dtype="float32", fill_value=np.nan, compressors=_compressor()
    )
    step = chunks[0] * max(1, BLOCK_BYTES // (4 * chunks[0] * chunks[1] * chunks[2]))
    for start in range(0, len(samples), step):
        run.stop_if_asked()
        block = samples.iloc[start : start + step]
        rates[start : start + step, : block["bins"].max()] = checked_rates(model, data, session, block)


def _write_extras(group: "zarr.Group", model: Model, data: FitData, session: str, samples: "pd.DataFrame") -> None:
    """Latents and whatever else the model gives a window; checked like rates, but of any sign."""
    who = f"model {type(model).__name__}, session {session}"
    latents = model.latents(data, session, samples)
    if latents is not None:
        past = np.arange(latents.shape[1]) >= samples["bins"].to_numpy()[:, None]
        _require(np.isfinite(latents[~past]).all(), f"{who}: latents that are not finite; nothing was published")
        _create(group, "latents", np.where(past[:, :, None], np.nan, latents).astype(np.float32))
    extras = model.extras(data, session, samples)
    if extras:
        inner = group.create_group("extras")
        for name, values in sorted(extras.items()):
            _require(len(values) == len(samples), f"{who}: {name} of {len(values)} windows, expected {len(samples)}")
            _create(inner, name, np.asarray(values, dtype=np.float32))


def _require(right: bool, problem: str) -> None:
    if not right:
        raise FitError(problem)


def checked_rates(model: Model, data: FitData, session: str, samples: "pd.DataFrame") -> np.ndarray:
    """What a model expects, float32 [S, T, N], NaN past the end of each window; FitError as for `write_predictions`."""
    bins = samples["bins"].to_numpy()
    shape = (len(samples), int(bins.max()), data.trains[session].n_units)
    rates = np.array(model.predict(data, session, samples), dtype=np.float32)
    who = f"model {type(model).__name__}, session {session}"
    if rates.shape != shape:
        raise FitError(f"{who}: rates of shape {rates.shape}, expected {shape} (windows, bins, units)")
    past = np.arange(shape[1]) >= bins[:, None]
    rates[past] = 0
    bad = ~(np.isfinite(rates) & (rates >= 0))
    if bad.any():
        window, at, unit = (int(i) for i in np.argwhere(bad)[0])
        name = data.trains[session].units["unit_id"].iloc[unit]
        found = f"the rate of unit {unit} ({name}) is {rates[window, at, unit]}"
        raise FitError(f"{who}: {found} in sample {samples.index[window]}, bin {at}; nothing was published")
    rates[past] = np.nan
    return rates


def _create(group: "zarr.Group", name: str, values: np.ndarray) -> None:
    group.create_array(name, data=np.ascontiguousarray(values), compressors=_compressor())


def _compressor() -> Any:
    from zarr.codecs import BloscCodec

    return BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
