"""Who is which colour: models, regions, signs and rates, told apart by colour-blind readers and in print."""

import zlib
from collections.abc import Iterable
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.lines import Line2D

from pipeline_lib.evaluation.settings import AVERAGED
from pipeline_lib.figures.names import told_apart

INK, QUIET, FAINT, HIDDEN = "#1A1A1A", "#6E6E6E", "#D9D9D9", "#EDEDED"
"""Measured data and the truth; secondary text; separators and what was not fitted; what was not observed."""

BEHIND: dict[str, Any] = {"color": INK, "lw": 1.6, "alpha": 0.45}
"""A measured or true curve behind a model's, which may be as dark: broad, and grey in any print."""

MODELS: dict[str, tuple[str, str, Any]] = {
    "mean_rate": ("Mean rate", "#B4B4B4", (0, (1, 1))),
    "psth": ("PSTH", "#CC79A7", (0, (4, 1.2))),
    "smoothing": ("Smoothing", "#56B4E9", (0, (5, 1, 1, 1))),
    "gpfa": ("GPFA", "#5E5E5E", "-"),
    "reduced_rank": ("Reduced rank", "#5A2BD1", (0, (3, 1, 1, 1, 1, 1))),
    "glm": ("GLM", "#0072B2", "-"),
    "glm_transformer": ("GLM-Transformer", "#D55E00", "-"),
    "lfads": ("LFADS", "#009E73", "-"),
    "ndt": ("NDT", "#E69F00", "-"),
    "neuroformer": ("Neuroformer", "#661150", "-"),
}
"""Name, colour and line of each. Okabe and Ito's palette (2008), greys, and two more hues; black is kept for measured
data, yellow is too pale. Baselines are dashed, so that a black-and-white print still tells them from the models."""
MARKS = dict(zip(MODELS, "sD^PXo*><d", strict=True))
"""Of points whose models nothing but a legend names: a black-and-white print has no colours."""
MODEL_COLOURS = {model: colour for model, (_, colour, _) in MODELS.items()}
SPARE_COLOURS = ("#AA4499", "#117733", "#882255", "#999933", "#332288", "#CC6677")
"""Tol's muted palette, for models a user adds."""
REGION_COLOURS = ("#332288", "#CC6677", "#117733", "#DDAA33", "#4C9CCF", "#882255", "#44AA99", "#661100", "#AA4499")
LABEL = 18
"""Letters of a model's name that a figure has room for."""
EXCITATION, INHIBITION = "#C2410C", "#075E9C"


def diverging_map() -> Colormap:
    """Blue (negative) through white (0) to vermilion (positive); what was not fitted (NaN) is grey."""
    colours = ["#064A80", INHIBITION, "#8DBBDD", "#FFFFFF", "#F3B48C", EXCITATION, "#A33207"]
    return LinearSegmentedColormap.from_list("coupling", colours).with_extremes(bad=FAINT)


def rate_map() -> Colormap:
    """White (silent) to near black, as ink on paper, through blue; bins beyond a window's end (NaN) are grey."""
    colours = ["#FFFFFF", "#D3E3EF", "#86B3D1", "#2F7AAE", "#114B78", "#06192B"]
    return LinearSegmentedColormap.from_list("rates", colours).with_extremes(bad=HIDDEN)


def model_colours(models: Iterable[str]) -> dict[str, str]:
    """A colour for each model: its own, whatever the others are; a user's model takes a spare one by its name, or a
    lighter or darker shade of one where there are more of them than spare colours. Rates averaged over a model's seeds
    have a dark shade of its own.

    >>> model_colours(["glm", "psth", "glm:mean"])
    {'glm': '#0072B2', 'psth': '#CC79A7', 'glm:mean': '#003959'}
    """
    colours: dict[str, str] = {}
    models = sorted(set(models))
    for model in sorted({model.removesuffix(AVERAGED) for model in models}):
        if model in MODEL_COLOURS:
            colours[model] = MODEL_COLOURS[model]
            continue
        first = zlib.crc32(model.encode()) % len(SPARE_COLOURS)
        order = SPARE_COLOURS[first:] + SPARE_COLOURS[:first]
        shades = [*order, *(_mixed(colour, white) for white in (1.0, 0.0) for colour in order)]
        colours[model] = next((shade for shade in shades if shade not in colours.values()), shades[0])
    averages = [model for model in models if model.endswith(AVERAGED)]
    return colours | {model: _mixed(colours[model.removesuffix(AVERAGED)], 0.0) for model in averages}


def _mixed(colour: str, white: float) -> str:
    """Half of the colour, half of white (1) or black (0)."""
    red, green, blue = ((part + white) / 2 for part in to_rgb(colour))
    return str(to_hex((red, green, blue)))


def model_line(model: str, colour: str) -> dict[str, Any]:
    """Line properties of a model."""
    fitted = model.removesuffix(AVERAGED)
    return {"color": colour, "linestyle": MODELS[fitted][2] if fitted in MODELS else "-"}


def model_key(models: Iterable[str], **look: Any) -> list[Line2D]:
    """What a legend shows of these models: their lines, changed by `look`, and their names."""
    colours, labels = model_colours(models), model_labels(models)
    return [Line2D([], [], label=labels[model], **(model_line(model, colours[model]) | look)) for model in models]


def model_mark(model: str) -> str:
    """The mark of a model's points; those of a user are octagons."""
    return MARKS.get(model.removesuffix(AVERAGED), "8")


def model_order(models: Iterable[str]) -> list[str]:
    """Baselines first, then the models in the order of `MODELS`, then a user's own by name; averages behind them."""
    known = list(MODELS)

    def place(model: str) -> tuple[int, str]:
        fitted = model.removesuffix(AVERAGED)
        return known.index(fitted) if fitted in known else len(known), model

    return sorted(set(models), key=place)


def model_name(model: str) -> str:
    """A model's name as a reader writes it.

    >>> model_name("glm_transformer"), model_name("my_model"), model_name("ndt:mean")
    ('GLM-Transformer', 'my model', 'NDT, rates averaged')
    """
    if model.endswith(AVERAGED):
        return f"{model_name(model.removesuffix(AVERAGED))}, rates averaged"
    return MODELS[model][0] if model in MODELS else model.replace("_", " ")


def model_label(model: str) -> str:
    """Its name on an axis, in a title or a legend: of one that is longer than `LABEL` letters, the two ends.

    >>> model_label("glm_transformer"), model_label("my_own_model_with_four_layers:mean")
    ('GLM-Transformer', 'my own mo…r layers, rates averaged')
    """
    if model.endswith(AVERAGED):
        return f"{model_label(model.removesuffix(AVERAGED))}, rates averaged"
    name = model_name(model)
    return name if len(name) <= LABEL else f"{name[: LABEL // 2]}\u2026{name[1 - LABEL // 2 :]}"


def model_labels(models: Iterable[str]) -> dict[str, str]:
    """The labels of models that stand side by side: of those that begin and end alike, what differs.

    >>> list(model_labels(["glm", "lfads_controller_32_dropout", "lfads_controller_64_dropout"]).values())
    ['GLM', '…32…', '…64…']
    """
    labels = {model: model_label(model) for model in models}
    for label in {each for each in labels.values() if list(labels.values()).count(each) > 1}:
        alike = [model for model in labels if labels[model] == label]
        labels |= dict(zip(alike, told_apart([model_name(model) for model in alike], LABEL), strict=True))
    return labels


def region_colours(regions: Iterable[str]) -> dict[str, str]:
    """A colour for each region, in alphabetical order; neighbours in a figure always differ.

    >>> region_colours(["VISp", "CA1", "VISp"])
    {'CA1': '#332288', 'VISp': '#CC6677'}
    """
    return {region: REGION_COLOURS[row % len(REGION_COLOURS)] for row, region in enumerate(sorted(set(regions)))}
