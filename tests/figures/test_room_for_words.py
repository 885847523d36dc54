"""Titles, names and numbers of figures of models, where there are many of them or they are long."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import (
    attention_connectivity,
    behaviour_traces,
    contrastive_latents,
    coupling_network,
    finetuning,
    generation,
    glm_transformer_ablation,
    glm_transformer_areas,
    search,
    training_curves,
)
from pipeline_lib.figures.names import told_apart
from pipeline_lib.figures.style import new_figure
from pipeline_lib.figures.units import Block, name_regions
from tests.figures.test_figure_drawing import assert_readable, words

LONG = "a_cohort_of_a_name_that_is_sixty_letters_long_and_a_bit_more"


def matrices(scale: float) -> pd.DataFrame:
    sender, receiver = (each.ravel() for each in np.indices((8, 8)))
    value = np.sin(np.arange(64.0)) * scale
    sources = ("Truth", "Cross-correlation", "Attention of Neuroformer", f"Couplings of {LONG}")
    rows = pd.DataFrame({"sender": sender, "receiver": receiver, "value": value})
    return pd.concat([rows.assign(source=source, auc=np.nan if source == "Truth" else 0.8) for source in sources])


@pytest.mark.parametrize("scale", [1e-6, 2e-4, 0.004, 1.0, 1000.0])
def test_scales_and_titles_of_attention_have_room(scale: float) -> None:
    """Numbers near 1e-4 ran together below a panel, and titles over the edge of the page."""
    figure = attention_connectivity.draw(matrices(scale))
    assert_readable(figure)
    places = sorted((box[1], box[0], box[2]) for text, box in words(figure) if text.lstrip("\u2212")[:1].isdigit())
    for (below, _, end), (above, start, _) in pairwise(places):
        assert below != above or start - end > 2, "points between numbers of one line"
    assert all(box[2] < 72 / 25.4 * 178 - 2 for text, box in words(figure) if "AUC" in text)


def areas(names: list[str]) -> pd.DataFrame:
    lags = np.arange(2.0, 12, 2)
    rows = [pd.DataFrame({"kind": "area", "sender": names, "value": 30.0})]
    for sender in names:
        for receiver in names:
            about = {"kind": "filter", "sender": sender, "receiver": receiver, "factor": 0, "value": 0.5}
            rows.append(pd.DataFrame({**about, "x": lags, "y": 1 / lags}))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    "names",
    [
        [f"VIS{place}" for place in range(7)],
        ["Primary visual area, layer 2/3", "Superior colliculus, motor", "Hippocampus"],
        ["CA1, left hemisphere"],
    ],
)
def test_names_of_populations_stand_apart(names: list[str]) -> None:
    said = words(glm_transformer_areas.draw(areas(names)))
    first = tuple(name[:3] for name in names)
    boxes = [
        box for text, box in said if text.removeprefix("from ").removeprefix("to ").lstrip("\u2026").startswith(first)
    ]
    assert len(boxes) == 2 * len(names)
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            across, down = (min(one[k + 2], other[k + 2]) - max(one[k], other[k]) for k in (0, 1))
            assert across < -1 or down < -1, "points between any two"


def trials(values: list[str]) -> pd.DataFrame:
    numbers = np.arange(len(values), dtype=float)
    about = {"search": "lfads", "cohort": LONG, "trial": np.arange(len(values)), "score": numbers, "best": 0.0}
    about |= {"correlation": 0.7}
    settings = {"dropout_of_the_encoder_and_of_the_decoder_together": "", LONG: ""}
    tables = [pd.DataFrame({**about, "setting": name, "value": 0.1 * numbers, "label": ""}) for name in settings]
    return pd.concat([*tables, pd.DataFrame({**about, "setting": "kind", "value": numbers, "label": values})])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_long_names_of_a_search_and_its_settings_stay_in_their_panels(count: int) -> None:
    figure = search.draw(trials([f"{'abcdefgh'[place]}_value_of_some_length" for place in range(count)]))
    assert_readable(figure)
    if count == 1:
        ticks = figure.axes[0].xaxis.get_major_locator().tick_values(0.95, 1.05)
        assert all(tick == round(tick) for tick in ticks), "trials are whole"


def test_signals_with_long_names_stay_on_the_page() -> None:
    time = np.arange(100) * 0.1
    about = {"model": "neuroformer", "variable": f"{LONG}/{LONG}", "signal_unit": "cm/s", "r2": 0.5, "r": 0.8}
    table = pd.DataFrame({**about, "time": time, "true": np.sin(time), "predicted": 0.0, "accuracy": np.nan})
    assert_readable(behaviour_traces.draw(table))


def test_scores_of_long_names_and_cohorts_of_an_ablation_have_room() -> None:
    scores = ["token_bits_per_spike", *(f"decoding_r2 {LONG}/{place}" for place in range(4))]
    rows = [{"score": score, "start": start, "fraction": share, "value": share} for score in scores
            for start in ("scratch", "pretrained") for share in (0.1, 1.0)]  # fmt: skip
    figure = finetuning.draw(pd.DataFrame(rows).assign(model="neuroformer", cohort="day", seed=0))
    assert_readable(figure)
    assert len(figure.axes) == finetuning.MOST and f"more than {finetuning.MOST} scores" in finetuning.CAPTION
    cohorts = ["full", *(f"without_{part}_of_the_whole_model_of_this_session" for part in ("gain", "coupling"))]
    rows = [{"session": "day", "cohort": cohort, "seed": 0, "value": 0.1, "difference": 0.0} for cohort in cohorts]
    figure = glm_transformer_ablation.draw(pd.DataFrame(rows))
    assert_readable(figure)
    assert figure.axes[0].get_position().width > 0.5


LAYERS = ["Primary visual area, layer 2/3", "Primary visual area, layer 5", "Hippocampal field CA1"]


def test_regions_that_begin_alike_are_told_apart() -> None:
    """Beside others that begin otherwise, too: both were "Primary visual ...\"."""
    assert told_apart(LAYERS) == ["\u20262/3", "\u20265", "Hippocampal fie\u2026"]
    axes = new_figure("single", 60).subplots()
    name_regions(axes, [Block(region, 10 * place, 10 * place + 10) for place, region in enumerate(LAYERS)], 50)
    assert len({label.get_text() for label in axes.get_yticklabels()}) == 3
    pairs = [{"sender_region": one, "receiver_region": other} for one in LAYERS for other in LAYERS]
    about = {"model": "glm", "receivers": 5, "coupled": 3, "share": 0.1, "exciting": 1.0, "tested": True}
    said = [text for text, _ in words(coupling_network.draw(pd.DataFrame(pairs).assign(**about)))]
    assert {"\u20262/3", "\u20265"} <= set(said)


def test_losses_of_first_steps_do_not_hide_how_curves_end() -> None:
    step = np.arange(100)
    loss = np.where(step < 3, 1e6, 1 + np.exp(-step / 20))
    table = pd.DataFrame({"cohort": "day", "model": "ndt", "seed": 0, "part": "training", "step": step, "loss": loss})
    low, high = training_curves.draw(table).axes[0].get_ylim()
    assert 0.5 < low < 1.01 and 1.9 < high < 4
    low, high = training_curves.draw(table[3:]).axes[0].get_ylim()
    assert low < loss.min() and high > loss[3:].max(), "else all of it"


def test_rasters_of_recorded_and_generated_spikes_have_one_axis() -> None:
    rows = [("spike", "recorded", 0.5, 3), ("spike", "recorded", 7.5, 3), ("spike", "generated", 2.0, 3)]
    rows += [("rate", "", 1.0, 2.0), ("rate", "", 2.0, 1.0), ("rate", "", 3.0, 0.5)]
    rows += [("interval", source, 10.0, 0.5) for source in ("recorded", "generated")]
    table = pd.DataFrame(rows, columns=["kind", "source", "x", "y"]).assign(model="neuroformer")
    figure = generation.draw(table)
    rasters = [axes for part in figure.subfigs[:1] for axes in part.axes]
    assert rasters[0].get_xlim() == rasters[1].get_xlim() and rasters[0].get_ylim() == (2, 4)
    assert "r = \u22120.98" in {text for text, _ in words(figure)}


def test_titles_of_features_stay_above_their_own_panels() -> None:
    place = pd.DataFrame({"x": [0.0, 1.0], "y": [0.0, 1.0], "share": 0.59, "value": [1.0, 2.0], "r2": -0.22})
    table = pd.concat([place.assign(feature=name) for name in ("frames", "spikes")])
    figure = contrastive_latents.draw(table.assign(variable="running/speed", signal_unit="cm/s"))
    (title,) = (box for text, box in words(figure) if text.startswith("Frames"))
    letter = next(box for text, box in words(figure) if text == "b")
    assert letter[0] - title[2] > 20, "points"
