"""Points in rows: intervals, and what is said of scores that lie beyond the axis."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from pipeline_lib.figures.points import scored_points, side_by_side
from pipeline_lib.figures.style import LETTER_ROOM, LETTER_SIZE, new_figure, panel_title, styled


def drawn(values: list[float], low: list[float], high: list[float], floor: float) -> Axes:
    axes = new_figure("single", 40).subplots()
    scores = pd.DataFrame({"value": values, "ci_low": low, "ci_high": high})
    scored_points(axes, scores, np.arange(len(values), dtype=float), "#0072B2", floor)
    return axes


def test_intervals_end_where_they_should_and_at_the_edge() -> None:
    axes = drawn([0.5, 0.2], [0.4, -9.0], [0.7, np.nan], floor=-1.0)
    ends = [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()]
    assert ends == [[0.4, 0.7], [-1.0, 0.2]], "an interval without an end ends at the point"
    assert axes.lines[0].get_xdata().tolist() == [0.5, 0.2] and not axes.texts


@pytest.mark.parametrize(("values", "said"), [([-3.0], "\u22123"), ([-3.0, -2.0, -2.5], "\u22123 to \u22122")])
def test_scores_below_the_axis_are_arrows_with_their_values(values: list[float], said: str) -> None:
    axes = drawn([0.5, *values], [np.nan] * (1 + len(values)), [np.nan] * (1 + len(values)), floor=-1.0)
    points, arrows = axes.lines
    assert points.get_xdata().tolist() == [0.5] and arrows.get_marker() == "<"
    assert arrows.get_xdata().tolist() == [-1.0] * len(values)
    assert [text.get_text() for text in axes.texts] == [said]


def test_intervals_of_many_points_would_be_one_block() -> None:
    for count, bars in ((12, 1), (13, 0)):
        axes = drawn([0.1] * count, [0.0] * count, [0.2] * count, floor=-1.0)
        assert len(axes.collections) == bars and len(axes.lines[0].get_xdata()) == count


def test_points_of_a_row_stay_apart() -> None:
    places = side_by_side(30)
    assert np.abs(places).max() <= 0.5 and np.diff(np.sort(places)).min() > 0.4 / 30


@styled
def lettered() -> mpl.figure.Figure:
    figure = new_figure("single", 40)
    panel_title(figure.subplots(), "a", "Rates", pad=6)
    return figure


def test_a_letter_stands_before_its_title_on_one_line() -> None:
    figure = lettered()
    figure.canvas.draw()
    (axes,) = figure.axes
    (letter,) = axes.texts
    title = next(text for text in axes.findobj(mpl.text.Text) if text.get_text() == "Rates")
    assert letter.get_fontsize() == LETTER_SIZE > title.get_fontsize() and letter.get_fontweight() == "bold"
    box, title_box = letter.get_window_extent(), title.get_window_extent()
    points = 72 / figure.dpi
    assert (title_box.x0 - box.x0) * points == pytest.approx(LETTER_ROOM, abs=1)
    assert box.x1 < title_box.x0
