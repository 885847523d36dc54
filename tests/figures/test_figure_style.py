"""One look: colours that can be told apart, fonts that a journal accepts, the same bytes every time."""

import itertools
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline_lib.figures import palette, style
from pipeline_lib.figures.names import shortened, told_apart

# Machado, Oliveira and Fernandes (2009): how a colour looks without one kind of cone, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* (D65) of a hexadecimal colour."""
    srgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ seen / [0.9505, 1.0, 1.089]
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(
    "palette",
    [[*palette.MODEL_COLOURS.values(), palette.INK], palette.REGION_COLOURS, palette.SPARE_COLOURS],
    ids=["models", "regions", "spare"],
)
def test_colours_are_distinguishable(palette: list[str], vision: str) -> None:
    pairs = itertools.combinations(palette, 2)
    closest = min(float(np.linalg.norm(lab(a, vision) - lab(b, vision))) for a, b in pairs)
    # A just noticeable difference is about 2.3; blue-yellow blindness is ten thousand times rarer than red-green.
    assert closest > (7 if vision == "tritanopia" else 12)


def test_a_model_keeps_its_colour_whatever_the_others_are() -> None:
    alone = {model: palette.model_colours([model])[model] for model in [*palette.MODEL_COLOURS, "mine"]}
    assert palette.model_colours(alone) == alone
    users = palette.model_colours([f"mine_{k}" for k in range(len(palette.SPARE_COLOURS))])
    assert sorted(users.values()) == sorted(palette.SPARE_COLOURS), "as many users' models as spare colours: all differ"


def test_diverging_map_is_centred_and_marks_what_was_not_fitted() -> None:
    colours = palette.diverging_map()
    assert np.allclose(colours(0.5), 1, atol=0.01)
    assert colours(1.0)[0] > colours(1.0)[2] and colours(0.0)[2] > colours(0.0)[0], "orange excites, blue inhibits"
    assert mpl.colors.to_hex(colours(np.ma.masked_invalid([np.nan]))[0]).upper() == palette.FAINT


@style.styled
def an_example() -> mpl.figure.Figure:
    figure = style.new_figure("single", 40)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1])
    style.panel_title(axes, "a", "An example")
    axes.set(xlabel="Time (s)", ylabel="Rate (spikes/s)")
    return figure


def test_figures_have_column_widths_and_readable_sizes() -> None:
    figure = an_example()
    assert figure.get_size_inches()[0] * 25.4 == pytest.approx(85)
    assert style.COLUMN_WIDTHS["double"] == 178
    sizes = [text.get_fontsize() for text in figure.findobj(mpl.text.Text) if text.get_text()]
    assert min(sizes) >= 6
    assert mpl.rcParams["font.size"] != style.FONT_SIZE, "drawing leaves the global settings alone"


def test_files_of_a_figure_appear_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the disk fills at the last of them."""

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(OSError, match="No space left"):
        style.save(style.new_figure("single", 40), pd.DataFrame({"time": [0.0]}), tmp_path / "empty")
    assert not list(tmp_path.iterdir())


def test_saved_bytes_do_not_depend_on_time_or_hash_seed(tmp_path: Path) -> None:
    data = pd.DataFrame({"time": [0.0, 1 / 3], "unit": [1, 2]})
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "import pandas as pd, tests.figures.test_figure_style as t\n"
        "from pipeline_lib.figures.style import save\n"
        "save(t.an_example(), pd.DataFrame({'time': [0.0, 1 / 3], 'unit': [1, 2]}), sys.argv[1])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "SOURCE_DATE_EPOCH": "1"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True, env=environment)
    style.save(an_example(), data, tmp_path / "one")
    for suffix in (".pdf", ".png", ".csv"):
        one, other = (tmp_path / f"{name}{suffix}" for name in ("one", "other"))
        assert one.read_bytes() == other.read_bytes(), suffix
    assert sorted(path.suffix for path in tmp_path.iterdir()) == sorted([".pdf", ".png", ".csv"] * 2)
    assert (tmp_path / "one.csv").read_text() == "time,unit\n0,1\n0.333333,2\n"


def test_places_of_panels_hold_no_digit_that_differs_from_one_time_to_the_next() -> None:
    """The solver of the layout sums in the order of addresses: half of the time the last digit is another."""
    figure = style.new_figure("double", 60)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 1))
    panels = [*left.subplots(2, 3).ravel(), right.subplots()]
    style.colour_bar(panels[-1].imshow([[0, 1]]), panels[-1], "Rate", location="bottom", shrink=0.8)
    for _ in range(2):  # what is laid out once is laid out again for the next file
        FigureCanvasAgg(figure).draw()
        boxes = [part.bbox_relative for part in (left, right)] + [
            axes.get_position(original=True) for axes in figure.axes
        ]
        for points in (box.get_points() for box in boxes):
            np.testing.assert_array_equal(points, points.round(12))
        assert all(axes.get_in_layout() for axes in panels)


def test_fonts_are_embedded_as_truetype(tmp_path: Path) -> None:
    style.save(an_example(), pd.DataFrame(), tmp_path / "figure")
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert re.search(rb"/FontFile2", pdf) and not re.search(rb"/Type3", pdf)
    assert b"CreationDate" not in pdf


def test_letters_that_a_face_lacks_are_taken_from_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of what no face has, which is drawn as boxes, nobody is warned letter by letter."""
    monkeypatch.setattr(style, "JOURNAL_FACES", ("cmtt10",))
    monkeypatch.setattr(style, "OTHER_SCRIPTS", ("No face of this name", "STIXGeneral"))
    monkeypatch.setattr(style, "_fonts", style._fonts.__wrapped__)
    figure = an_example()
    figure.axes[0].set_title("left \u043b\u0435\u0432\u043e \u2a57 \u5de6")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        style.save(figure, pd.DataFrame(), tmp_path / "figure")
    faces = set(re.findall(rb"BaseFont /[A-Z]*\+?([\w-]+)", (tmp_path / "figure.pdf").read_bytes()))
    assert {b"Cmtt10", b"DejaVuSans", b"STIXGeneral-Regular"} <= faces, faces


def test_a_notice_wraps_its_text_inside_the_figure() -> None:
    figure = style.notice("A long sentence that says why there is nothing to draw in this figure. " * 2)
    figure.canvas.draw()
    box = figure.texts[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 and box.y1 <= figure.bbox.height


def test_conditions_of_several_columns_stay_apart_when_shortened() -> None:
    names = [f"side={side} choice={choice}" for side in ("left", "right") for choice in ("left", "right")]
    assert [shortened(name) for name in names] == ["left left", "left right", "right left", "right right"]
    assert shortened("side=left") == "side=left"
    assert shortened("a long name of a region") == "a long name of \u2026"


def test_units_with_long_names_are_told_apart() -> None:
    """Sorters put what all units share before, and behind, what tells them apart."""
    names = [f"imec0.ap-cluster-{number:04d}-good" for number in (12, 17, 130)]
    assert told_apart(names) == ["\u20260012\u2026", "\u20260017\u2026", "\u20260130\u2026"]
    assert told_apart(["3", "12"], 4) == ["3", "12"]
    assert told_apart(["imec0_12345678", "imec0_12345679"], 10) == ["\u202612345678", "\u202612345679"]
    assert told_apart(["one-name-of-many-letters"]) == ["\u2026letters"]
    assert told_apart(["unit", "unit-with-a-longer-name"]) == ["unit", "unit-with-a-lon\u2026"]
    assert told_apart(["a name of a unit", "another name of a unit"]) == ["a\u2026", "another\u2026"]
    assert told_apart(["left", "the only long name here"]) == ["left", "the only long n\u2026"]
    assert told_apart([]) == []


@pytest.mark.parametrize("vision", VISION)
def test_averaged_rates_have_a_colour_of_their_own(vision: str) -> None:
    """Of the models that draw at random; of the others all seeds are the same."""
    drawing = [f"{model}:mean" for model in ("glm_transformer", "lfads", "ndt", "neuroformer")]
    colours = [*palette.model_colours([*palette.MODEL_COLOURS, *drawing]).values(), palette.INK]
    assert len(colours) == len(palette.MODEL_COLOURS) + 5
    pairs = itertools.combinations(colours, 2)
    assert min(float(np.linalg.norm(lab(a, vision) - lab(b, vision))) for a, b in pairs) > 7


def test_averages_stand_behind_their_model() -> None:
    models = ["ndt", "mine:mean", "mine", "ndt:mean", "lfads", "lfads:mean"]
    assert palette.model_order(models) == ["lfads", "lfads:mean", "ndt", "ndt:mean", "mine", "mine:mean"]
    assert palette.model_line("psth:mean", "red")["linestyle"] == palette.model_line("psth", "red")["linestyle"]
    alone, beside = palette.model_colours(["mine:mean"]), palette.model_colours(["mine", "mine:mean"])
    assert alone["mine:mean"] == beside["mine:mean"]
