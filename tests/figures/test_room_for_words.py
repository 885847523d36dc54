"""Titles, names and numbers of figures of models, where there are many of them or they are long."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import attention_connectivity, glm_transformer_areas, search
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
