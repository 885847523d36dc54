"""Every figure can be read: axes have labels, no text covers another or leaves the page."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from pipeline_lib.errors import InputError
from pipeline_lib.figures import (
    FIGURES,
    NothingToDrawError,
    coupling,
    coupling_network,
    figure_spec,
    make,
    model_comparison,
    psth,
    raster_rates,
    score_table,
    session_overview,
)
from pipeline_lib.figures.fits import DISCOVERY
from pipeline_lib.figures.paired import LEAST_FOR_INTERVAL
from pipeline_lib.figures.palette import model_order
from pipeline_lib.figures.points import MOST_BARS
from pipeline_lib.figures.style import COLUMN_WIDTHS
from pipeline_lib.sources.candidates import EXCERPT, REFRACTORY
from tests.figures.made_up_results import Results, made_up_metrics

SLACK = 0.6  # points: anti-aliased edges of neighbouring letters may touch


def words(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Texts as they are drawn, and their boxes (x0, y0, x1, y1) in points."""
    found = []
    draw = Text.draw

    def recorded(self: Text, renderer: RendererBase, *args: object, **kwargs: object) -> None:
        if self.get_visible() and self.get_text().strip():
            found.append((self.get_text(), np.array(self.get_window_extent(renderer).extents) * 72 / figure.dpi))
        draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", recorded)
        FigureCanvasAgg(figure).draw()
    return found


def assert_readable(figure: Figure) -> None:
    texts = words(figure)
    width, height = figure.get_size_inches() * 72
    assert round(width / 72 * 25.4) in COLUMN_WIDTHS.values()
    for text, (x0, y0, x1, y1) in texts:
        assert x0 > -SLACK and y0 > -SLACK and x1 < width + SLACK and y1 < height + SLACK, f"{text!r} is clipped"
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        across = min(a[2], b[2]) - max(a[0], b[0])
        down = min(a[3], b[3]) - max(a[1], b[1])
        assert across < SLACK or down < SLACK, f"{one!r} lies over {other!r}"
    for axes in figure.findobj(Axes):
        if axes.get_visible() and axes.axison:
            assert_labelled(axes, figure)


def assert_labelled(axes: Axes, figure: Figure) -> None:
    """An axis with numbers says what they are, in the panel itself or in the first panel of its row or column."""
    box = axes.get_position()
    others = [each for each in figure.findobj(Axes) if each.get_visible() and each.figure is axes.figure]
    row = [each for each in others if abs(each.get_position().y0 - box.y0) < 0.02]
    for axis, label, family in (
        (axes.xaxis, axes.get_xlabel(), [axes]),
        (axes.yaxis, axes.get_ylabel(), row),
    ):
        texts = [text.get_text() for text in axis.get_ticklabels() if text.get_visible() and text.get_text()]
        if any(text.replace("\u2212", "-").replace(".", "").lstrip("-").isdigit() for text in texts):
            name = "xlabel" if axis is axes.xaxis else "ylabel"
            assert label or any(getattr(each, f"get_{name}")() for each in family), f"{name} of {axes.get_title()!r}"


ALWAYS = {"session_overview", "trains_check", "raster_rates", "latents", "psth", "coupling", "score_table"}
ALWAYS |= {"model_comparison", "score_scaling", "training_curves", "speed"}
"""Figures of what every run makes; the others are of models that the made-up results lack, and tested beside them."""


def drawn(name: str, results: Results) -> Figure:
    return FIGURES[name].load().draw(table_of(name, results))


def table_of(name: str, results: Results) -> pd.DataFrame:
    spec = FIGURES[name]
    try:
        return spec.load().data(**{need: results.of(spec.scope)[need] for need in spec.needs})
    except NothingToDrawError as reason:
        assert name not in ALWAYS, reason
        pytest.skip(f"nothing of it in the made-up results: {reason}")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_readable(name: str, trials: Results, several: Results) -> None:
    assert_readable(drawn(name, several if FIGURES[name].scope == "all" else trials))


@pytest.mark.parametrize("name", ["session_overview", "trains_check", "raster_rates", "latents", "coupling"])
def test_figures_of_continuous_recordings_are_readable(name: str, continuous: Results) -> None:
    assert_readable(drawn(name, continuous))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_drawn_again_from_its_csv(name: str, trials: Results, several: Results) -> None:
    module = FIGURES[name].load()
    table = table_of(name, several if FIGURES[name].scope == "all" else trials)
    text = table.to_csv(index=False, float_format="%.6g")
    assert len(text) < 2_000_000
    again = module.draw(pd.read_csv(io.StringIO(text)))
    assert [word for word, _ in words(again)] == [word for word, _ in words(module.draw(table))]


def test_many_models_regions_and_conditions_still_fit() -> None:
    models = [*model_order(["psth", "glm", "lfads", "ndt", "neuroformer", "glm_transformer"]), "a_users_own_model"]
    regions = np.array([f"Region{k:02d}" for k in range(35)])
    rng = np.random.default_rng(0)
    units, times = np.arange(70), np.arange(100) / 100
    region = regions[units // 2]
    rows = [
        pd.DataFrame({"kind": ["window", "clock"], "event": "onset", "time": [0.0, np.nan], "value": [1.0, 1234.5]})
    ]
    at = {"unit": np.repeat(units, 100), "row": np.repeat(units, 100), "region": np.repeat(region, 100), "heldout": 0.0}
    for model in models:
        rows.append(pd.DataFrame({"kind": "rate", "model": model, "time": np.tile(times, 70), "value": 20.0, **at}))
        trace = {name: values[:300] if name != "heldout" else 1.0 for name, values in at.items()}
        value = 1000 * rng.random(300)
        rows.append(pd.DataFrame({"kind": "trace", "model": model, "time": np.tile(times, 3), "value": value, **trace}))
    spikes = {name: values[:500] if name != "heldout" else 0.0 for name, values in at.items()}
    rows.append(pd.DataFrame({"kind": "spike", "time": rng.random(500), **spikes}))
    assert_readable(raster_rates.draw(pd.concat(rows, ignore_index=True)))

    conditions = ["a condition with a very long name indeed", "short", "", "third"]
    source = ["measured", *models]
    index = pd.MultiIndex.from_product([source, conditions, units[:4], times[:25]])
    table = index.to_frame(index=False, name=["source", "condition", "unit", "time"])
    table = table.assign(
        trials=12, region="Region00", event="", heldout=True, value=12345 * rng.random(len(table)), error=9.0
    )
    assert_readable(psth.draw(table))


def test_scores_of_many_sessions_and_scores_far_below_the_null_fit() -> None:
    metrics = pd.concat([made_up_metrics(f"a-very-long-session-name_{k:09d}-probe{k}", k) for k in range(6)])
    table = metrics[(metrics["aggregation"] == "pooled") & (metrics["null"] == "evaluated mean")]
    table = table[table["metric"] == "bits_per_spike"].reset_index(drop=True)
    table.loc[2, ["value", "ci_low", "ci_high"]] = -123.4
    table.loc[5, ["ci_low", "ci_high"]] = np.nan
    figure = score_table.draw(table)
    assert_readable(figure)
    assert any("123" in text or "1.2e+02" in text for text, _ in words(figure)), "the number is written at the edge"
    low, _ = figure.axes[0].get_xlim()
    assert low > -2, "one failed fit does not squeeze the others"

    metrics = pd.concat([made_up_metrics(f"session{k}", k) for k in range(30)])
    table = metrics[(metrics["aggregation"] == "pooled") & (metrics["null"] == "evaluated mean")]
    table = table[table["metric"] == "bits_per_spike"]
    figure = score_table.draw(table)
    assert_readable(figure)
    assert figure.get_size_inches()[1] < 3


def test_a_session_of_several_cohorts_has_a_block_for_each() -> None:
    metrics = pd.concat([made_up_metrics("one", 0), made_up_metrics("two", 1)])
    table = metrics[(metrics["aggregation"] == "pooled") & (metrics["null"] == "evaluated mean")]
    table = table[table["metric"] == "bits_per_spike"]
    table = pd.concat([table, table[table["session"] == "two"].assign(cohort="both")])
    figure = score_table.draw(table)
    assert_readable(figure)
    assert {"one", "two, two", "two, both"} <= {text for text, _ in words(figure)}


def test_the_likelihood_of_written_spikes_has_a_row_of_its_own(trials: Results, tmp_path: Path) -> None:
    table = pd.read_parquet(trials.metrics)
    rows = table[(table["metric"] == "bits_per_spike") & (table["model"] == "glm") & (table["units"] == "heldin")]
    more = rows.assign(metric="token_bits_per_spike", value=rows["value"] + 0.1)
    pd.concat([table, more]).to_parquet(tmp_path / "metrics.parquet")
    found = score_table.data(tmp_path / "metrics.parquet")
    assert len(found.query("metric == 'token_bits_per_spike'")) == 2, "two seeds, one null, pooled, of the test part"
    figure = score_table.draw(found)
    assert_readable(figure)
    axes = figure.axes[0]
    places = {label.get_text(): at for label, at in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)}
    points = [line for line in axes.lines if line.get_marker() == "o"]
    drawn = {float(np.mean(line.get_ydata())): sorted(line.get_xdata()) for line in points}
    values = found.query("metric == 'token_bits_per_spike'")["value"]
    assert drawn[places["GLM, likelihood"]] == pytest.approx(sorted(values))
    assert places["GLM, likelihood"] == places["GLM"] + 1


def test_a_truth_in_a_unit_of_its_own_has_a_scale_of_its_own(trials: Results) -> None:
    table = coupling.data(trials.recording, trials.fits)
    table = table[~((table["kind"] == "filter") & (table["source"] == "truth"))].copy()
    table.loc[(table["kind"] == "strength") & (table["source"] == "truth"), "value"] *= 1e4
    figure = coupling.draw(table)
    assert_readable(figure)
    labels = [axes.get_ylabel() for axes in figure.findobj(Axes)]
    assert "Strength (simulator's unit)" in labels and "Strength (log-rate per spike)" in labels
    alone = coupling.draw(table[table["source"] != "truth"])
    assert_readable(alone)


def test_matrices_of_many_regions_name_those_that_have_room(trials: Results) -> None:
    table = coupling.data(trials.recording, trials.fits)
    units = table["kind"] == "unit"
    names = [*("A_large_region",) * 20, *(f"region{k:02d}" for k in range(units.sum() - 20))]
    table.loc[units, "region"] = names
    figure = coupling.draw(table)
    assert_readable(figure)
    shown = {text for text, _ in words(figure)}
    assert "A_large_region" in shown and "region07" not in shown


def test_matrix_shows_receivers_as_rows_and_senders_as_columns(trials: Results) -> None:
    table = coupling.data(trials.recording, trials.fits)
    figure = coupling.draw(table)
    order = table.loc[table["kind"] == "unit", "receiver"].tolist()
    panel = next(axes for axes in figure.findobj(Axes) if "GLM" in axes.get_title(loc="left"))
    image = panel.images[0].get_array()
    cell = table[(table["kind"] == "strength") & (table["source"] == "glm")].iloc[11]
    assert image[order.index(cell["receiver"]), order.index(cell["sender"])] == pytest.approx(cell["value"])
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("Sender", "Receiver")
    low, high = panel.images[0].get_clim()
    assert low == -high


def test_sparse_and_silent_sessions_can_be_drawn(trials: Results) -> None:
    table = session_overview.data(trials.recording)
    silent = table.copy()
    silent.loc[(silent["panel"] == "rate") & (silent["unit"] < 30), "value"] = 0.0
    assert_readable(session_overview.draw(silent))
    assert_readable(session_overview.draw(table[table["panel"] != "trial"]))


def test_make_writes_three_files_or_says_why_there_is_nothing(trials: Results, tmp_path: Path) -> None:
    make("score_table", trials.paths(), tmp_path / "score_table")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"score_table.{kind}" for kind in ("csv", "pdf", "png")]
    uncoupled = trials.paths() | {"fits": [fit for fit in trials.fits if fit.parent.name == "psth"]}
    make("coupling", uncoupled, tmp_path / "coupling")
    table = pd.read_csv(tmp_path / "coupling.csv")
    assert list(table.columns) == ["nothing_to_draw"] and "has couplings" in table.iloc[0, 0]
    assert (tmp_path / "coupling.png").stat().st_size > 1000


def test_make_refuses_what_it_cannot_do(trials: Results, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'coupling'"):
        figure_spec("couplings")
    with pytest.raises(InputError, match="fits"):
        make("coupling", {"recording": trials.recording}, tmp_path / "coupling")
    with pytest.raises(InputError, match="seed"):
        make("coupling", trials.paths() | {"fits": [tmp_path]}, tmp_path / "coupling")
    assert not list(tmp_path.iterdir())


def test_make_takes_one_fit_for_a_list_and_no_list_for_one_session(trials: Results, tmp_path: Path) -> None:
    paths = trials.of("cohort")
    fit = paths["fits"][0]
    tables = []
    for fits in (fit, [fit], str(fit)):
        make("psth", paths | {"fits": fits}, tmp_path / "psth")
        tables.append((tmp_path / "psth.csv").read_bytes())
    assert tables[0] == tables[1] == tables[2]
    with pytest.raises(InputError, match="figure psth: trains: found 1 paths; accepted: one path"):
        make("psth", paths | {"trains": [paths["trains"]]}, tmp_path / "psth")
    with pytest.raises(InputError, match=r"none\.parquet: metrics: found no such file"):
        make("score_table", {"metrics": tmp_path / "none.parquet"}, tmp_path / "scores")


def test_the_registry_is_light_and_figures_never_import_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, pipeline_lib.figures as f\n"
        "assert 'matplotlib' not in sys.modules and 'pandas' not in sys.modules\n"
        "[spec.load() for spec in f.FIGURES.values()]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FIGURES)
def test_every_caption_says_what_to_look_for_in_plain_words(name: str) -> None:
    """Snakemake's report reads it as reStructuredText: a stray star or backtick would garble it."""
    from docutils.core import publish_doctree

    caption = FIGURES[name].caption
    assert caption == FIGURES[name].load().CAPTION
    assert caption.endswith(".") and 100 < len(caption) < 900
    document = publish_doctree(caption, settings_overrides={"report_level": 1, "halt_level": 1})
    assert document.astext() == caption and len(document) == 1


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("attention_connectivity", "SHOWN_UNITS"),
        ("contrastive_latents", "NEIGHBOURS"),
        ("coupling_map", "MOST_UNITS"),
        ("coupling_network", "MOST_REGIONS"),
        ("finetuning", "MOST"),
        ("generation", "SHOWN_UNITS"),
        ("glm_transformer_areas", "MOST"),
        ("latents", "LEAST_POINTS"),
        ("latents", "SHOWN_CONDITIONS"),
        ("latents", "SHOWN_MODELS"),
        ("psth", "CONDITIONS"),
        ("psth", "EXAMPLES"),
        ("raster_rates", "SHOWN_UNITS"),
        ("score_table", "MOST_COHORTS"),
        ("session_overview", "LEAST_RATE"),
        ("session_overview", "SHOWN_UNITS"),
        ("trains_check", "SHOWN_UNITS"),
        ("truth_recovery", "MOST_SESSIONS"),
    ],
)
def test_captions_say_how_many_are_shown_of_what_there_are_more_of(name: str, most: str) -> None:
    """Twelve regions, of which nine are drawn and nothing says so, read as a session of nine."""
    spec = FIGURES[name]
    assert re.search(rf"\b{getattr(spec.load(), most)}\b", spec.caption)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("coupling_map", f"a false-discovery rate of {100 * DISCOVERY:g} %"),
        ("coupling_network", f"a false-discovery rate of {100 * DISCOVERY:g} %"),
        ("coupling_network", f"the {100 * coupling_network.STRONGEST:g} % of all pairs"),
        ("decoding", f"up to {MOST_BARS} points a row"),
        ("glm_transformer_areas", f"{DISCOVERY}"),
        ("model_comparison", f"{LEAST_FOR_INTERVAL} sessions"),
        ("model_comparison", f"{model_comparison.SIGNIFICANT}"),
        ("session_overview", f"at most {EXCERPT:g} seconds"),
        ("trains_check", f"shorter than {1000 * REFRACTORY:g} ms"),
        ("truth_recovery", f"{MOST_BARS} points"),
    ],
)
def test_captions_say_the_numbers_that_figures_go_by(name: str, said: str) -> None:
    assert said in FIGURES[name].caption


def test_a_star_takes_six_sessions_as_the_caption_says() -> None:
    five, six = (model_comparison.sign_flip_p(np.ones(sessions)) for sessions in (5, 6))
    assert six < model_comparison.SIGNIFICANT <= five and "at least six sessions" in model_comparison.CAPTION
