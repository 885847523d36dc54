"""What the reviewer of a journal would send back: names that do not fit, legends over points, colours without print."""

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline_lib.figures import (
    decoding,
    latents,
    model_comparison,
    psth,
    score_scaling,
    score_table,
    session_overview,
    trains_check,
)
from tests.figures.made_up_results import Results, made_up_metrics
from tests.figures.test_figure_drawing import assert_readable, words

LONG = [f"a_model_of_somebody_with_a_name_of_its_own_number_{place}" for place in range(12)]


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    """Of twelve models with long names, in three sessions."""
    one = pd.concat([made_up_metrics(f"day{day}", day) for day in range(3)]).query("model == 'glm' and seed == 0")
    scores = pd.concat([one.assign(model=model, value=one["value"] + place / 50) for place, model in enumerate(LONG)])
    known = scores[scores["null"] == "evaluated mean"]
    target = "decoding_where_the_hand_of_the_animal_is_and_goes_r2"
    decoded = known[known["units"] == "heldin"].assign(metric=target, units="all")
    pd.concat([scores, decoded]).to_parquet(tmp_path / "metrics.parquet")
    return tmp_path / "metrics.parquet"


@pytest.mark.parametrize("module", [decoding, model_comparison, score_table])
def test_long_names_of_models_leave_room_for_their_scores(module, metrics: Path) -> None:
    figure = module.draw(module.data(metrics))
    assert_readable(figure)
    assert figure.axes[0].get_position().width > 0.25
    named = {text for text, _ in words(figure) if text.startswith("a model")}
    assert len(named) >= len(LONG), "each by its end"


def test_models_whose_long_names_differ_in_the_middle_are_told_apart(metrics: Path) -> None:
    table = score_table.data(metrics)
    table = table[table["model"].isin(LONG[:2])]
    named = {model: f"lfads_controller_{width}_dropout" for model, width in zip(LONG, (32, 64), strict=False)}
    figure = score_table.draw(table.assign(model=table["model"].map(named)))
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels() if not label.get_text().startswith("day")]
    assert sorted(set(rows)) == ["\u202632\u2026", "\u202664\u2026"]


def test_a_legend_of_many_models_stays_on_the_page(trials: Results) -> None:
    table = psth.data(trials.trains, trials.split, trials.fits)
    own = table[table["source"] == "glm"]
    figure = psth.draw(pd.concat([table[table["source"] == "measured"], *(own.assign(source=name) for name in LONG)]))
    assert_readable(figure)


def test_conditions_that_begin_alike_are_told_apart(trials: Results) -> None:
    table = psth.data(trials.trains, trials.split, trials.fits)
    figure = psth.draw(table.assign(condition="natural scenes, image " + table["condition"]))
    names = [text.splitlines()[0] for text, _ in words(figure) if "Rate (spikes/s)" in text]
    assert len(names) == len(set(names)) == table["condition"].nunique()


def test_models_that_only_a_legend_names_have_marks_of_their_own(several: Results) -> None:
    """In a black-and-white print a blue and a red point are one grey."""
    paths = several.of("all")
    table = score_scaling.data(paths["metrics"], paths["trains"], paths["split"])
    figure = score_scaling.draw(table)
    keys = {handle.get_marker(): handle.get_color() for handle in figure.legends[0].legend_handles}
    assert len(keys) == table["model"].nunique()
    drawn = {(line.get_marker(), line.get_color()) for line in figure.axes[0].lines if len(line.get_xdata())}
    assert set(keys.items()) <= drawn


def test_the_legend_of_violations_lies_over_no_point(trials: Results) -> None:
    table = trains_check.data(trials.recording, trials.trains)
    slowest = table["of"].where(table["panel"] == "violation").idxmin()
    table.loc[slowest, "value"] = 99.0
    figure = trains_check.draw(table)
    FigureCanvasAgg(figure).draw()
    axes = next(each for each in figure.axes if "Intervals below" in each.get_ylabel())
    box = axes.get_legend().get_window_extent()
    (point,) = axes.transData.transform([(table.loc[slowest, "of"], 99.0)])
    assert point[0] < box.x1 and point[1] < box.y0


def test_an_axis_of_shares_ends_at_all(trials: Results) -> None:
    figure = trains_check.draw(trains_check.data(trials.recording, trials.trains))
    axes = next(each for each in figure.axes if each.get_ylabel() == "Bins (%)")
    shown = [tick for tick in [*axes.get_yticks(), *axes.get_yticks(minor=True)] if tick <= axes.get_ylim()[1]]
    assert max(shown) == 100 == axes.spines["left"].get_bounds()[1]


def test_a_component_that_explains_little_does_not_explain_nothing(trials: Results) -> None:
    table = latents.data(trials.split, trials.trains, trials.fits)
    table["pc3"] = table["pc3"].mask(table["kind"] == "share", 0.004)
    said = {text for text, _ in words(latents.draw(table))}
    assert "PC 3 (<1 %)" in said and "PC 3 (0 %)" not in said


def test_a_region_of_one_unit_shows_its_point(trials: Results) -> None:
    table = session_overview.data(trials.recording)
    first = table[table["panel"].isin(["rate", "trial"])].drop_duplicates("panel")
    first = first.assign(region=first["region"].mask(first["panel"] == "rate", "Primary visual area, layer 2/3"))
    table = pd.concat([first, table[table["panel"].isin(["course", "count"])]])
    figure = session_overview.draw(table)
    axes = next(each for each in figure.axes if each.get_xlabel() == "Mean rate (spikes/s)")
    assert not axes.collections, "a bar would hide it"
    said = {text for text, _ in words(figure)}
    assert "Course of the session, 1 trial" in said and "Primary visual \u2026 (1)" in said
