"""The parts of single trials' log-rates beside the currents that a simulation injected (Xin & Kass 2025, figure 3)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.clock import TICKS_PER_MS
from pipeline_lib.evaluation.truth import window_means
from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.excerpts import truth_of, unit_ids
from pipeline_lib.figures.glm_transformer_fit import coupled_fit, matched, name_lines, test_windows
from pipeline_lib.figures.palette import INK, MODEL_COLOURS, QUIET
from pipeline_lib.figures.style import new_figure, panel_title, styled
from pipeline_lib.recording import read_description

CAPTION = (
    "Parts of the log-rate that the GLM-Transformer infers (orange) beside the input that the simulation gave the "
    "same unit (black), in test trials. Above, the background; below, the synaptic input from other units. Left, one "
    "trial; middle, the mean over trials; both for the unit with most synaptic input (named in the CSV). A log-rate is "
    "no current: the fit is stretched once, for both parts and all trials alike, and each part shifted. Right, the "
    "correlation of part and input over all test trials and bins, a dot a unit: 1 is perfect. Where synapses are next "
    "to none, the coupling found should be flat."
)

PARTS = {"background": "background_input", "coupling": "coupling_input"}
NAMES = {"background": "Background", "coupling": "Coupling"}
SILENT = 0.1
"""Units with less than this share of the largest synaptic input (standard deviation) have no dot."""


def data(recording: Path | str, split: Path | str, fits: Sequence[Path | str]) -> pd.DataFrame:
    """Rows by `kind`: "trial" and "mean" (part, source = fit or truth, time in ms, value in the simulation's unit), and
    "correlation" (part, value), with the `unit` (row of the session's units) that is shown, and its unit_id.

    Raises
    ------
    NothingToDrawError : no simulated input is known, or no fit was made with `components: true`.
    """
    fit, session = coupled_fit(fits), str(read_description(recording)["session"])
    truth = truth_of(recording, PARTS.values())
    if not set(PARTS.values()) <= set(truth.arrays):
        raise NothingToDrawError(f"Nobody knows the true inputs of {session}.")
    windows = test_windows(fit, split, session, [f"log_rate_{part}" for part in PARTS])
    if len(windows.extras) < len(PARTS):
        raise NothingToDrawError("The GLM-Transformer was fitted without `components: true`.")
    starts, ticks = windows.samples["start_tick"].to_numpy(), windows.bin_ticks
    bins = windows.latents.shape[1]
    true = {part: window_means(truth, name, starts, bins, ticks) for part, name in PARTS.items()}
    strength = true["coupling"].std(axis=(0, 1))
    shown, time = int(strength.argmax()), (np.arange(bins) + 0.5) * ticks / TICKS_PER_MS
    fits_shown = {part: windows.extras[f"log_rate_{part}"][..., shown] for part in PARTS}
    scaled = stretched(fits_shown, {part: true[part][..., shown] for part in PARTS})
    rows = []
    for part in PARTS:
        fitted = windows.extras[f"log_rate_{part}"]
        for source, values in (("fit", scaled[part]), ("truth", true[part][..., shown])):
            for kind, curve in (("trial", values[0]), ("mean", values.mean(axis=0))):
                names = {"kind": kind, "part": part, "source": source, "unit": shown}
                rows.append(pd.DataFrame({**names, "time": time, "value": curve}))
        spread = true[part].std(axis=(0, 1))
        units = np.flatnonzero(spread > SILENT * max(spread.max(), 1e-12))
        scores = [matched(fitted[..., unit], true[part][..., unit])[1] for unit in units]
        rows.append(pd.DataFrame({"kind": "correlation", "part": part, "unit": units, "value": scores}))
    table = pd.concat(rows, ignore_index=True)
    table["unit_id"] = unit_ids(recording)[table["unit"]]
    return table[["kind", "part", "source", "unit", "unit_id", "time", "value"]]


def stretched(fitted: dict[str, np.ndarray], true: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parts on the scale of the true ones, by least squares: one factor for all parts, a shift for each.

    A factor for each would draw a coupling that is not there as flat as one that was not found.
    """
    centred = {part: (fitted[part] - fitted[part].mean(), true[part] - true[part].mean()) for part in fitted}
    power = sum(float(np.square(x).sum()) for x, _ in centred.values())
    factor = sum(float((x * y).sum()) for x, y in centred.values()) / power if power > 0 else 0.0
    return {part: true[part].mean() + factor * x for part, (x, _) in centred.items()}


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a part: one trial, the mean, and how well all units are met."""
    figure = new_figure("double", 78)
    grid = figure.subplots(2, 3, width_ratios=(2, 2, 1))
    colour = MODEL_COLOURS["glm_transformer"]
    letters, tall = iter("abcdef"), dict[str, float]()
    for row, part in zip(grid, PARTS, strict=True):
        own = table[table["part"] == part]
        for axes, kind, title in zip(row, ("trial", "mean"), ("one trial", "mean of the test trials"), strict=False):
            for source, look in (("truth", {"color": INK, "lw": 1.0}), ("fit", {"color": colour, "lw": 1.1})):
                line = own[(own["kind"] == kind) & (own["source"] == source)]
                axes.plot(line["time"], line["value"], **look)
            panel_title(axes, next(letters), f"{NAMES[part]}, {title}")
            low, high = axes.get_ylim()
            # The axis of the coupling is never shorter than that of the background: what is nothing looks like it.
            tall[kind] = max(tall.get(kind, 0.0), high - low)
            axes.set(xlabel="Time (ms)", ylabel="Input (SD of the noise)", xlim=(0, None), ylim=(low, low + tall[kind]))
        scores = own.loc[own["kind"] == "correlation", "value"].dropna().to_numpy()
        spread = np.linspace(-0.3, 0.3, len(scores)) if len(scores) > 1 else np.zeros(len(scores))
        row[2].scatter(spread, np.sort(scores), s=4, color=colour, linewidths=0)
        row[2].axhline(1, color=QUIET, lw=0.4, ls=(0, (2, 2)))
        summary = f"median {np.median(scores):.2f}" if len(scores) else "no input, none found"
        panel_title(row[2], next(letters), summary)
        row[2].set(
            xlabel="Units", ylabel="Correlation", xlim=(-0.5, 0.5), xticks=[], ylim=(min(0, *scores, 0) - 0.02, 1.04)
        )
    name_lines(figure, "injected")
    return figure
