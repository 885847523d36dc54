"""What the run cost: time and memory of its jobs, by stage and model."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.fits import Fit
from pipeline_lib.figures.palette import INHIBITION, INK, QUIET, model_colours, model_labels, model_order
from pipeline_lib.figures.points import side_by_side, word_rows
from pipeline_lib.figures.style import SMALL_SIZE, log_axis, new_figure, panel_title, styled

CAPTION = (
    "What the run cost, stage by stage: a point a job, bars the medians, jobs in brackets. (a) Time from start to "
    "end, which other work on the machine makes longer. (b) Memory at its highest; diamonds are memory of the GPU. "
    "(c) Processor time of all jobs of the stage together: where a faster machine, or less of something, would help "
    "most; stages that ran on a GPU say so. (d) Where a fit ran on a GPU: the share of the time in which the GPU was "
    "at work, for it or for others. Far below 100 %, the GPU waits for the processor, and several fits may share it. "
    "Fits are measured by themselves, other stages by Snakemake, which looks twice a second: it can miss a peak, or a "
    "short job. A fit that was resumed counts only its last stretch; what was copied for further seeds is no fit."
)

STAGES = {
    "fetch": "Fetch",
    "simulate": "Simulate",
    "record": "Read",
    "convert": "Convert",
    "split": "Split",
    "fit": "Fit",
    "search": "Search",
    "predict": "Predict",
    "average": "Average",
    "evaluate": "Score",
    "collect": "Collect",
    "figures": "Draw",
    "report": "Report",
}
"""Stages by the folder of their measurements, in the order in which they run; others have their folder's name."""
MEASURED = ("wall", "cpu", "memory", "gpu_memory", "gpu_use")


def data(fits: Sequence[Path | str], benchmarks: Path | str, jobs: Collection[str] | None = None) -> pd.DataFrame:
    """A row a job: the `fits` that are no copies, and of the folder `benchmarks`, which keeps former runs', `jobs`.

    Without `jobs`, all of them. Columns: stage ("fit" or a rule), model ("" but for fits), job, wall (s), cpu (s),
    memory (MB), device ("cpu", "cuda", or "" where it is not known), gpu_memory (MB) and gpu_use (per cent of the
    time), NaN without a GPU.

    Raises
    ------
    NothingToDrawError : no job was measured.
    """
    rows = []
    for fit in (Fit.at(directory) for directory in fits):
        path = fit.directory / "run.json"
        about = json.loads(path.read_text()) if path.is_file() else {}
        if about.get("wall_seconds") is not None and "copy_of_seed" not in about:
            cost = {
                "wall": about["wall_seconds"],
                "cpu": about.get("cpu_seconds"),
                "memory": about.get("peak_memory_mb"),
                "gpu_memory": about.get("gpu_peak_memory_mb"),
                "gpu_use": about.get("gpu_use_percent"),
            }
            job = f"{fit.cohort}/{fit.model}/seed{fit.seed}"
            rows.append({"stage": "fit", "model": fit.model, "job": job, **cost, "device": about.get("device", "")})
    folder, asked = Path(benchmarks), None if jobs is None else set(jobs)
    for path in sorted(folder.glob("*/**/*.tsv")):
        stage, _, job = path.relative_to(folder).with_suffix("").as_posix().partition("/")
        if stage != "fit" and (asked is None or job in asked):
            measured = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
            cost = {"wall": measured["s"], "cpu": measured["cpu_time"], "memory": measured["max_rss"]}
            rows.append({"stage": stage, "model": "", "job": job, **cost, "device": ""})
    if not rows:
        raise NothingToDrawError("No job of this run was measured.")
    columns = ["stage", "model", "job", *MEASURED[:3], "device", *MEASURED[3:]]
    return pd.DataFrame(rows).reindex(columns=columns).astype(dict.fromkeys(MEASURED, float))


@styled
def draw(table: pd.DataFrame) -> Figure:
    """A row a stage, and a model of the fits; panels for time, memory and the sum, and for GPUs if there were any."""
    table = table.fillna({"model": "", "device": ""})
    models = model_order(table.loc[table["stage"] == "fit", "model"].unique())
    found = set(table["stage"])
    stages = [*(stage for stage in STAGES if stage in found), *sorted(found - set(STAGES))]
    rows = [(stage, model) for stage in stages for model in (models if stage == "fit" else [""])]
    figure = new_figure("double", 4.6 * len(rows) + 16)
    used = bool(table["gpu_use"].notna().any())
    grid = figure.subplots(1, 3 + used, sharey=True, width_ratios=(1.25, 1, 1) + (0.8,) * used)
    colours = model_colours(models)
    groups = dict(iter(table.groupby(["stage", "model"])))
    for place, row in enumerate(rows):
        jobs, colour = groups[row], colours.get(row[1], QUIET)
        _jobs(grid[0], jobs["wall"], place, colour)
        _jobs(grid[1], jobs["memory"], place, colour)
        gpu = jobs["gpu_memory"].dropna()
        grid[1].plot(gpu, np.full(len(gpu), place), "D", ms=3.0, mew=0.6, mfc="none", color=colour)
        if used:
            _jobs(grid[3], jobs["gpu_use"], place, colour)
    log_axis(grid[0].xaxis, table["wall"].clip(lower=0.01))
    log_axis(grid[1].xaxis, pd.concat([table["memory"], table["gpu_memory"].dropna()]).clip(lower=1))
    _totals(grid[2], [float(groups[row]["cpu"].sum()) for row in rows], [groups[row] for row in rows])
    if used:
        grid[3].set_xlim(0, 100)
    of_models = model_labels(models)
    names = [f"Fit {of_models[model]}" if model else STAGES.get(stage, stage.capitalize()) for stage, model in rows]
    labels = [f"{name} ({len(groups[row])})" for name, row in zip(names, rows, strict=True)]
    grid[0].set_yticks(range(len(rows)), labels)
    grid[0].set_ylim(len(rows) - 0.4, -0.6)
    for axes, letter, title, label in zip(
        grid,
        "abcd",
        ("Time of a job", "Memory of a job", "Processor time, summed", "GPU use"),
        ("Time (s)", "Peak memory (MB)", "Processor time (s)", "GPU at work (%)"),
        strict=False,
    ):
        axes.set_xlabel(label)
        word_rows(axes)
        panel_title(axes, letter, title)
    return figure


def _jobs(axes: Axes, values: pd.Series, place: int, colour: str) -> None:
    known = values.dropna().to_numpy()
    heights = place + 0.5 * side_by_side(len(known))
    axes.plot(np.maximum(known, 0.01), heights, "o", ms=2.6, mew=0, alpha=0.6, color=colour)
    if len(known):
        axes.vlines(max(float(np.median(known)), 0.01), place - 0.38, place + 0.38, color=INK, lw=1.2)


def _totals(axes: Axes, totals: list[float], jobs: list[pd.DataFrame]) -> None:
    axes.barh(range(len(totals)), totals, height=0.6, color=INHIBITION)
    top = max([*totals, 1e-3])
    for place, (total, own) in enumerate(zip(totals, jobs, strict=True)):
        gpu = ", GPU" if own["device"].astype(str).str.startswith("cuda").any() else ""
        axes.annotate(
            f"{total:,.1f}{gpu}", (total, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL_SIZE
        )
    axes.set_xlim(0, 1.35 * top)
