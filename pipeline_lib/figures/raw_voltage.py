"""Raw voltage of a probe above the spikes that were sorted from it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.palette import INK, diverging_map
from pipeline_lib.figures.style import colour_bar, new_figure, panel_title, styled
from pipeline_lib.recording import Recording
from pipeline_lib.sources.voltage import Snippet, snippets_in

CAPTION = (
    "Raw voltage of every channel of a probe (above; the median over channels is taken off, as is each channel's own) "
    "and the spikes of its sorted units in the same time (below, by depth). Look for spikes in the voltage that no "
    "unit claims, and for units that fire where there is nothing to see."
)
LARGEST = 400_000
"""Samples of all channels that are drawn and listed at most, more than the picture has dots; longer snippets are
thinned in time."""


def data(recording: Path | str, source: Path | str) -> pd.DataFrame:
    """Rows by `kind`: "voltage" (`row` = channel, value in µV) and "spike" (`row` = unit of the probe, by depth).

    `time` is in s of the session. `source` is the folder that the session was read from, where the snippet lies that
    its option `voltage` asked for (of the first probe that has one), or a snippet's file.

    Raises
    ------
    NothingToDrawError : no raw voltage of this session is here, or the recording has no unit of the probe.
    """
    whole, source = Recording.read(recording), Path(source)
    files = snippets_in(source, whole.provenance.selection) if source.is_dir() else [source]
    if not files:
        raise NothingToDrawError(
            "No raw voltage of this session is here: its option `voltage` was not set, or none is published."
        )
    snippet = Snippet.read(files[0])
    values = snippet.voltage - np.median(snippet.voltage, axis=0)
    values -= np.median(values, axis=1, keepdims=True)
    step = -(-values.size // LARGEST)
    values = peaks(values, step)
    samples, channels = values.shape
    time = snippet.start + np.arange(samples) * step / snippet.rate
    rows = np.tile(np.arange(channels), samples)
    picture = pd.DataFrame({"kind": "voltage", "time": np.repeat(time, channels), "row": rows, "value": values.ravel()})
    units = whole.units
    own = np.flatnonzero(units["probe"] == snippet.probe) if "probe" in units else np.arange(len(units))
    if len(own) == 0:
        raise NothingToDrawError(f"The recording has no unit of {snippet.probe}.")
    depth = units["depth"].to_numpy(dtype=float)[own] if "depth" in units else np.arange(len(own))
    place = np.full(len(units), -1)
    place[own[np.argsort(depth, kind="stable")]] = np.arange(len(own))
    end = snippet.start + len(snippet.voltage) / snippet.rate
    inside = (whole.spike_times >= snippet.start) & (whole.spike_times < end) & (place[whole.spike_units] >= 0)
    marks = pd.DataFrame({"time": whole.spike_times[inside], "row": place[whole.spike_units[inside]]})
    return pd.concat([picture, marks.assign(kind="spike", value=np.nan)], ignore_index=True)


def peaks(values: np.ndarray, step: int) -> np.ndarray:
    """Of every `step` samples (samples, channels) the one that is largest in size, by channel: spikes stay visible."""
    padded = np.concatenate([values, np.zeros((-len(values) % step, values.shape[1]), values.dtype)])
    blocks = padded.reshape(-1, step, values.shape[1])
    largest = np.abs(blocks).argmax(axis=1)
    return np.take_along_axis(blocks, largest[:, None], axis=1)[:, 0]


@styled
def draw(table: pd.DataFrame) -> Figure:
    """The figure of what `data` returns."""
    voltage = table[table["kind"] == "voltage"]
    spikes = table[table["kind"] == "spike"]
    image = voltage.pivot(index="row", columns="time", values="value")
    times = image.columns.to_numpy(dtype=float)
    limit = float(np.percentile(np.abs(image.to_numpy()), 99.5)) or 1.0
    figure = new_figure("double", 110)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    extent = (times[0], times[-1], -0.5, len(image) - 0.5)
    look: dict[str, Any] = {"cmap": diverging_map(), "vmin": -limit, "vmax": limit}
    shown = above.imshow(image.to_numpy(), aspect="auto", origin="lower", extent=extent, **look)
    colour_bar(shown, above, "Voltage (\u00b5V)", pad=0.01, aspect=25, extend="both")
    above.set_ylabel("Channel, from the tip")
    panel_title(above, "a", f"Voltage, {len(image)} channels")
    below.vlines(spikes["time"], spikes["row"] - 0.4, spikes["row"] + 0.4, color=INK, lw=0.5)
    below.set(xlabel="Time in session (s)", ylabel="Unit, by depth")
    below.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel_title(below, "b", f"{len(spikes)} spikes of {spikes['row'].nunique()} units")
    return figure
