"""Figures of windows of three bins, of one trial, of pairs that nothing couples, and of models with long names."""

from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.figures import coupling, psth, raster_rates
from tests.figures.made_up_results import Results
from tests.figures.test_figure_drawing import words


def gaps(figure: Figure, texts: set[str]) -> list[float]:
    """Points between neighbours of these texts that stand in one line."""
    boxes = sorted((round(box[1]), box[0], box[2]) for text, box in words(figure) if text in texts)
    return [after[1] - one[2] for one, after in pairwise(boxes) if one[0] == after[0]]


def numbers(figure: Figure) -> set[str]:
    return {text for text, _ in words(figure) if text.replace(".", "").isdigit()}


def test_times_of_a_few_milliseconds_do_not_run_together(trials: Results) -> None:
    """Of windows of three bins of 5 ms."""
    table = psth.data(trials.trains, trials.split, trials.fits)
    bins = np.floor(table["time"] * 3)
    table = table.assign(time=0.005 * bins + 0.0025).drop_duplicates(["source", "condition", "unit", "time"])
    figure = psth.draw(table)
    assert min(gaps(figure, numbers(figure))) > 2
    table = raster_rates.data(trials.trains, trials.split, trials.fits, trials.recording)
    table = table.assign(time=table["time"] * 0.015, value=table["value"].mask(table["kind"] == "window", 0.015))
    figure = raster_rates.draw(table)
    assert min(gaps(figure, numbers(figure))) > 2


def test_models_with_long_names_have_titles_of_their_own(trials: Results) -> None:
    """They ran into one line of words above the maps."""
    table = raster_rates.data(trials.trains, trials.split, trials.fits)
    one = table[table["model"] == "glm"]
    names = [f"a_model_with_a_name_of_sixty_letters_number_{place}" for place in range(5)]
    table = pd.concat([table[table["model"].isna()], *(one.assign(model=name) for name in names)])
    figure = raster_rates.draw(table)
    titles = {axes.get_title(loc="left") for axes in figure.axes} | {axes.get_title() for axes in figure.axes}
    assert min(gaps(figure, {title for title in titles if title.startswith("a model")})) > 2


def test_one_trial_has_no_error_and_its_legend_claims_none(trials: Results) -> None:
    table = psth.data(trials.trains, trials.split, trials.fits)
    said = [
        psth.draw(each).legends[0].get_texts()[0].get_text() for each in (table, table.assign(trials=1, error=np.nan))
    ]
    assert said == ["Measured, mean \u00b1 s.e.m.", "Measured"]


def test_couplings_of_a_session_that_nothing_couples_keep_their_colours_and_have_no_area(trials: Results) -> None:
    """An area under the curve of no coupled pair was "nan", and the scale that of a coupling of 1."""
    table = coupling.data(trials.recording, trials.fits)
    table["value"] = table["value"].mask(table["kind"] == "auc")
    of = table["kind"].isin(["strength", "filter"])
    table["value"] = table["value"].mask(of & (table["source"] == "truth"), 0.0)
    table["value"] = table["value"].mask(of & (table["source"] != "truth"), table["value"] * 1e-3)
    figure = coupling.draw(table)
    titles = [axes.get_title(loc="left") for axes in figure.subfigs[0].axes]
    assert "GLM" in titles and not any("nan" in title for title in titles)
    limits = {axes.images[0].get_clim()[1] for axes in figure.subfigs[0].axes if axes.images}
    assert len(limits) == 1 and 0 < limits.pop() < 0.01, "one scale, of what there is"
