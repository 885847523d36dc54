"""Raw voltage of a probe above the spikes that were sorted from it."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.style import INK, QUIET, new_figure, panel_title, styled
from pipeline_lib.sources.voltage import Snippet

CAPTION = (
    "Raw voltage of every channel of a probe (above; the median over channels is taken off, as is each channel's own) "
    "and the spikes of its sorted units in the same time (below, by depth). Look for spikes in the voltage that no "
    "unit claims, and for units that fire where there is nothing to see."
)
LARGEST = 4_000_000
"""Samples of all channels that are drawn and listed at most; longer snippets are thinned in time."""


@styled
def draw(table: pd.DataFrame) -> Figure:
    """The figure of what `data` returns."""
    voltage = table[table["kind"] == "voltage"]
    spikes = table[table["kind"] == "spike"]
    image = voltage.pivot(index="row", columns="time", values="value")
    times = image.columns.to_numpy(dtype=float)
    limit = float(np.percentile(np.abs(image.to_numpy()), 99.5)) or 1.0
    figure = new_figure("double", 130)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    extent = (times[0], times[-1], -0.5, len(image) - 0.5)
    shown = above.imshow(
        image.to_numpy(), aspect="auto", origin="lower", extent=extent, cmap="RdBu_r", vmin=-limit, vmax=limit
    )
    bar = figure.colorbar(shown, ax=[above, below], pad=0.01, aspect=40)
    bar.set_label("voltage (µV)")
    above.set_ylabel("channel, from the tip")
    panel_title(above, "a", f"Voltage, {len(image)} channels")
    below.scatter(spikes["time"], spikes["row"], s=2, marker="|", linewidths=0.6, color=INK)
    below.set_ylabel("unit, by depth")
    below.set_xlabel("time in the session (s)")
    panel_title(below, "b", f"{len(spikes)} spikes of {spikes['row'].nunique()} units")
    below.tick_params(colors=QUIET)
    return figure


def data(recording: Path | str, voltage: Path | str) -> pd.DataFrame:
    """Rows by `kind`: "voltage" (`row` = channel, value in µV) and "spike" (`row` = unit of the probe, by depth).

    `time` is in s of the session. Raises NothingToDrawError where the recording has no unit of this probe.
    """
    from pipeline_lib.recording import Recording

    snippet, source = Snippet.read(Path(voltage)), Recording.read(recording)
    values = snippet.voltage - np.median(snippet.voltage, axis=0)
    values -= np.median(values, axis=1, keepdims=True)
    step = -(-values.size // LARGEST)
    values = values[::step]
    samples, channels = values.shape
    time = snippet.start + np.arange(samples) * step / snippet.rate
    rows = np.tile(np.arange(channels), samples)
    picture = pd.DataFrame({"kind": "voltage", "time": np.repeat(time, channels), "row": rows, "value": values.ravel()})
    units = source.units
    own = np.flatnonzero(units["probe"] == snippet.probe) if "probe" in units else np.arange(len(units))
    if len(own) == 0:
        raise NothingToDrawError(f"The recording has no unit of {snippet.probe}.")
    depth = units["depth"].to_numpy(dtype=float)[own] if "depth" in units else np.arange(len(own))
    place = np.full(len(units), -1)
    place[own[np.argsort(depth, kind="stable")]] = np.arange(len(own))
    end = snippet.start + len(snippet.voltage) / snippet.rate
    inside = (source.spike_times >= snippet.start) & (source.spike_times < end) & (place[source.spike_units] >= 0)
    marks = pd.DataFrame({"time": source.spike_times[inside], "row": place[source.spike_units[inside]]})
    return pd.concat([picture, marks.assign(kind="spike", value=np.nan)], ignore_index=True)
