"""Scores that a first run seldom has: all worse than nothing, of ten seeds, of one model, huge or next to nothing."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline_lib.figures import decoding, glm_transformer_false_coupling, model_comparison, score_scaling, score_table
from pipeline_lib.figures.palette import MODELS
from tests.figures.test_figure_drawing import assert_readable, words


def scores(models: Sequence[str], sessions: int = 1, seeds: int = 1, level: float = 0.0) -> pd.DataFrame:
    """Metrics in which each model is a little better than the one before."""
    rng = np.random.default_rng(0)
    fixed = {"split": "test", "null": "evaluated mean", "aggregation": "pooled", "sees": "held-in units", "n": 18}
    rows = []
    for session in range(sessions):
        for place, model in enumerate(models):
            for seed in range(seeds):
                about = {"cohort": f"day{session}", "session": f"day{session}", "model": model, "seed": seed, **fixed}
                value = level + 0.05 * place + rng.normal(0, 0.005)
                about |= {"value": value, "ci_low": value - 0.02, "ci_high": value + 0.02}
                rows += [about | {"metric": "bits_per_spike", "units": units} for units in ("heldin", "heldout")]
                rows.append(about | {"metric": "decoding_speed_r2", "units": "all"})
    return pd.DataFrame(rows)


def table_of(module, metrics: pd.DataFrame, directory: Path) -> pd.DataFrame:
    metrics.to_parquet(directory / "metrics.parquet")
    return module.data(directory / "metrics.parquet")


@pytest.mark.parametrize("module", [score_table, model_comparison])
def test_models_that_are_all_worse_than_nothing_are_still_compared(module, tmp_path: Path) -> None:
    """The axis ended above all of them: a row of arrows."""
    table = table_of(module, scores(["glm", "ndt"], level=-3.0), tmp_path)
    axes = module.draw(table).axes[0]
    assert not [line for line in axes.lines if line.get_marker() in "<v" and len(line.get_xdata())]
    ends = axes.get_xlim() if module is score_table else axes.get_ylim()
    assert min(ends) < -3 and max(ends) >= 0


def test_curves_of_models_that_are_all_worse_than_nothing_are_shown() -> None:
    rows = [("a", 10, -3.0), ("b", 20, -2.0), ("c", 40, -1.5)]
    table = pd.DataFrame(rows, columns=["session", "units", "value"])
    table = table.assign(cohort=table["session"], model="glm", scored="heldin", minutes=5.0)
    lines = {line.get_marker(): list(line.get_ydata()) for line in score_scaling.draw(table).axes[0].lines}
    assert lines["o"] == [-2.0, -1.5] and lines["v"] == [-2.25], "only what lies far below the best is an arrow"


@pytest.mark.parametrize("module", [score_table, decoding])
def test_ten_seeds_of_a_model_are_ten_intervals(module, tmp_path: Path) -> None:
    """They were a block, a fifth of a millimetre from one to the next."""
    figure = module.draw(table_of(module, scores(["glm", "ndt"], seeds=10), tmp_path))
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    for lines in axes.collections:
        heights = np.array([axes.transData.transform(path.vertices)[0, 1] for path in lines.get_paths()])
        apart = np.abs(np.diff(heights)).min() * 72 / figure.dpi
        assert len(heights) == 10 and apart > 1.2 * lines.get_linewidth()[0], "white between one and the next"


def test_a_table_of_one_model_has_room_for_its_names(tmp_path: Path) -> None:
    figure = score_table.draw(table_of(score_table, scores(["glm"]), tmp_path))
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    session, model = (label.get_window_extent() for label in axes.get_yticklabels())
    assert (session.y0 - model.y1) * 72 / figure.dpi > 1, "in points"


@pytest.mark.parametrize("level", [1e8, 1e-4])
def test_no_factor_of_numbers_stands_over_the_letter_of_a_panel(level: float, tmp_path: Path) -> None:
    metrics = scores(["glm", "ndt"], sessions=2)
    metrics["value"] = metrics["value"].abs() * level
    assert_readable(model_comparison.draw(table_of(model_comparison, metrics, tmp_path)))


def test_averages_over_seeds_stand_beside_their_models_in_a_comparison(tmp_path: Path) -> None:
    """Their long names took the room of titles and numbers."""
    models = ["glm", "glm_transformer", "lfads", "ndt", "neuroformer"]
    metrics = scores([name for model in models for name in (model, f"{model}:mean")], sessions=6)
    assert_readable(model_comparison.draw(table_of(model_comparison, metrics, tmp_path)))


def test_numbers_with_stars_stay_in_their_cells(tmp_path: Path) -> None:
    figure = model_comparison.draw(table_of(model_comparison, scores(list(MODELS), sessions=20), tmp_path))
    boxes = [box for text, box in words(figure) if text.endswith("*")]
    assert len(boxes) == 90
    cell = figure.axes[2].get_window_extent().width * 72 / figure.dpi / (len(MODELS) - 1)
    assert max(box[2] - box[0] for box in boxes) < cell


def test_small_differences_have_the_decimals_that_they_differ_in() -> None:
    assert [model_comparison._number(0.0042, limit, 3) for limit in (0.5, 0.02, 0.004)] == [
        "+0.00",
        "+0.004",
        "+0.0042",
    ]
    assert [model_comparison._number(value, 2.0, 10) for value in (0.25, -0.25, 1.0)] == ["+.25", "\u2212.25", "+1.00"]


def test_a_legend_of_long_names_stays_on_the_page() -> None:
    models = [f"a_model_of_somebody_with_{place}_layers" for place in range(4)]
    rows = [{"cohort": "day", "session": "day", "seed": 0, "model": model, "value": 0.1} for model in models]
    figure = glm_transformer_false_coupling.draw(pd.DataFrame(rows))
    assert_readable(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width, "with the marks before the names"
