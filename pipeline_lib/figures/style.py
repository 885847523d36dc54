"""One look for every figure: journal column widths, print sizes, fonts, axes, and the files that are written.

Nothing here touches matplotlib's global state: `styled` applies the settings while a figure is drawn, `save` while it
is written. The same data gives the same bytes in every format.
"""

import functools
import itertools
import string
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator
from matplotlib.transforms import Bbox, ScaledTranslation

from pipeline_lib.figures.palette import INK, QUIET, diverging_map
from pipeline_lib.files import atomic_file

P = ParamSpec("P")

MM = 1 / 25.4
"""Inches in a millimetre."""
COLUMN_WIDTHS = {"single": 85.0, "wide": 120.0, "double": 178.0}
"""Journal columns, mm: one, one and a half, two."""
PRINT_DPI = 300
FONT_SIZE, SMALL_SIZE, LETTER_SIZE = 7.0, 6.0, 9.0
"""Points: of text, of numbers and notes, of the letters of panels."""
JOURNAL_FACES = ("Helvetica", "Arial", "Liberation Sans", "Nimbus Sans")
OTHER_SCRIPTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Droid Sans Fallback", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic",
    "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip
"""Faces of Linux, macOS and Windows for names that Latin, Greek, Cyrillic, Hebrew and Arabic letters do not write."""
LETTERS = (*string.ascii_lowercase, *map("".join, itertools.product(string.ascii_lowercase, repeat=2)))
"""Of panels, in their order: a to z, then aa and so on."""
LETTER_ROOM = 10.0
"""Points from a panel's letter to its title."""
KEY_ROOM, LETTER_WIDTH = 10.0, 1.2
"""Millimetres that an entry of a legend takes, and in addition for each letter of its name."""
PLACE_DIGITS = 12
"""Decimals of the places of panels: fewer would move them, more would hold what differs from one time to the next."""
SHORT_WINDOW = 0.05
"""Seconds of a window below which numbers of time have many digits, and fewer ticks are set."""
SMALL_SCALE = 0.01
"""Of scales that end below it three numbers stand side by side below a panel; more run together."""
NOTICE_LETTERS = 58
"""Letters in a line of a figure that has nothing to draw."""

SETTINGS: dict[str, Any] = {
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.labelsize": FONT_SIZE,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "lines.linewidth": 0.9,
    "lines.solid_capstyle": "butt",
    "patch.linewidth": 0.5,
    "legend.fontsize": SMALL_SIZE,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.borderaxespad": 0.0,
    "figure.dpi": 150.0,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
    "axes.formatter.limits": (-7, 9),  # a factor of all numbers, "1e6", would stand over a panel's letter
    "axes.formatter.useoffset": False,
    "text.parse_math": False,  # a condition named "$5 or $10" is no formula
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "ps.fonttype": 42,
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a drawing function with this module's settings, whatever the process has set.

    >>> @styled
    ... def draw(table: pd.DataFrame) -> Figure:
    ...     figure = new_figure("single", 40)
    ...     figure.subplots().plot(table["time"], table["rate"])
    ...     return figure
    >>> len(draw(pd.DataFrame({"time": [0, 1], "rate": [5, 7]})).axes)
    1
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _settings():
            return draw(*args, **kwargs)

    return drawn


def new_figure(column: str, height: float) -> Figure:
    """An empty figure as wide as a `column` of `COLUMN_WIDTHS` and `height` mm high, laid out without overlaps.

    >>> (new_figure("single", 40).get_size_inches() / MM).round(1).tolist()
    [85.0, 40.0]
    """
    return Figure(figsize=(COLUMN_WIDTHS[column] * MM, height * MM), layout=_SteadyLayout())


class _SteadyLayout(ConstrainedLayoutEngine):
    """matplotlib's constrained layout, the same to the last digit each time.

    Its solver sums in the order of addresses. A last digit is enough to move what ends at the middle of a pixel.
    """

    def execute(self, fig: Figure) -> Any:
        """Lay out, then round all places, which are shares of the figure or of the part they are in."""
        grids = super().execute(fig)
        parts = list(fig.subfigs)
        for part in parts:
            part.bbox_relative.set_points(part.bbox_relative.get_points().round(PLACE_DIGITS))
            parts += part.subfigs
        for axes in fig.axes:
            laid_out = axes.get_in_layout()
            axes.set_position(Bbox(axes.get_position(original=True).get_points().round(PLACE_DIGITS)))
            axes.set_in_layout(laid_out)  # placed by hand, it would be left out next time
        return grids


def stacked(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    """Parts of the figure from top to bottom, each laid out on its own, with these relative heights."""
    return list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel())


def panel_grid(part: Figure | SubFigure, panels: int, columns: int, **look: Any) -> list[Axes]:
    """So many panels row by row, `columns` of them a row; `look` as for `Figure.subplots`.

    >>> len(panel_grid(new_figure("single", 40), panels=5, columns=3))
    5
    """
    grid = part.subplots(-(-panels // columns), columns, squeeze=False, **look).ravel()
    for axes in grid[panels:]:
        axes.set_visible(False)
    return list(grid[:panels])


def log_axis(axis: Axis, values: Iterable[float]) -> None:
    """A logarithmic axis with plain numbers (0.1, 2, 5,000) over the finite `values` above 0, with a little room.

    >>> axes = new_figure("single", 40).subplots()
    >>> log_axis(axes.xaxis, [0.5, 40.0])
    >>> axes.get_xscale(), [round(float(limit), 2) for limit in axes.get_xlim()]
    ('log', [0.38, 52.0])
    """
    finite = np.array([value for value in values if np.isfinite(value) and value > 0])
    low, high = (finite.min() / 1.3, finite.max() * 1.3) if len(finite) else (0.1, 10.0)
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low, high)})
    decades = np.log10(high / low)
    few = MaxNLocator(5, steps=(1, 2, 5, 10))  # less than a decade: even steps, or one tick alone might remain
    axis.set_major_locator(few if decades < 0.8 else LogLocator(subs=(1, 2, 5) if decades < 1.7 else (1,), numticks=6))
    axis.set_major_formatter(lambda value, place: f"{value:,.0f}" if value >= 1000 else f"{value:.3g}")
    axis.set_minor_formatter("")


def panel_title(axes: Axes, letter: str, title: str, pad: float = SETTINGS["axes.titlepad"]) -> None:
    """Title at the left, after a bold panel letter; `pad` is its distance from the axes in points.

    >>> axes = new_figure("single", 40).subplots()
    >>> panel_title(axes, "a", "Rates")
    >>> axes.get_title(loc="left")
    'Rates'
    """
    heading = axes.set_title(title, loc="left", pad=pad)  # of themselves, 3-D axes centre it
    room = ScaledTranslation(LETTER_ROOM / 72, 0, axes.figure.dpi_scale_trans)
    heading.set_transform(heading.get_transform() + room)
    look: dict[str, Any] = {"fontsize": LETTER_SIZE, "fontweight": "bold", "annotation_clip": False}
    axes.annotate(letter, (0, 1), (0, pad), xycoords="axes fraction", textcoords="offset points", **look)


def legend_below(part: Figure | SubFigure, handles: Sequence[Line2D]) -> None:
    """A legend below the panels of a part as wide as its figure, in as few lines as the names leave room for.

    >>> figure = new_figure("double", 40)
    >>> legend_below(figure, [Line2D([], [], label=name) for name in ("Measured", "GLM", "NDT")])
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['Measured', 'GLM', 'NDT']
    """
    columns = legend_columns([str(handle.get_label()) for handle in handles], part.figure.get_figwidth() / MM)
    part.legend(handles=handles, loc="outside lower center", ncols=columns)


def legend_columns(names: Sequence[str], room: float) -> int:
    """Most columns of a legend of these names that `room` (mm) is wide enough for, by the longest name of each.

    >>> legend_columns(["GLM", "NDT", "LFADS"], 85), legend_columns(["a name that is as long as a line"] * 3, 85)
    (3, 1)
    """
    letters = np.array(list(map(len, names)))
    for columns in range(len(names), 1, -1):
        if sum(KEY_ROOM + LETTER_WIDTH * each.max() for each in np.array_split(letters, columns)) <= room:
            return columns
    return 1


def signed_image(axes: Axes, values: Any, limit: float, **look: Any) -> AxesImage:
    """`values` (rows, columns) around 0 as cells, their colours between -limit and limit; `look` as for `imshow`."""
    return axes.imshow(values, cmap=diverging_map(), vmin=-limit, vmax=limit, interpolation="nearest", **look)


def colour_bar(image: ScalarMappable, axes: Axes | Iterable[Axes], label: str, **look: Any) -> Colorbar:
    """The scale of `image` beside `axes`, named by its quantity and unit; `look` as for `Figure.colorbar`.

    >>> axes = new_figure("single", 40).subplots()
    >>> colour_bar(axes.imshow([[0, 1]]), axes, "Rate (spikes/s)").ax.get_ylabel()
    'Rate (spikes/s)'
    """
    beside = [axes] if isinstance(axes, Axes) else list(axes)
    bar = beside[0].figure.colorbar(image, ax=beside, label=label, **look)
    bar.outline.set_linewidth(0.4)
    if look.get("location") == "bottom" and max(map(abs, image.get_clim())) < SMALL_SCALE:
        bar.locator = MaxNLocator(2)
        bar.formatter = FuncFormatter(lambda value, place: f"{value:.2g}".replace("-", "\u2212"))
        bar.update_ticks()
    return bar


def with_unit(quantity: str, unit: object) -> str:
    """The label of an axis; of a quantity whose unit is not known ("", NaN of a CSV), its name alone.

    >>> with_unit("Speed", "cm/s"), with_unit("Speed", "")
    ('Speed (cm/s)', 'Speed')
    """
    return f"{quantity} ({unit})" if isinstance(unit, str) and unit else quantity


@styled
def notice(text: str) -> Figure:
    """A figure that only says why there is nothing to draw."""
    figure = new_figure("single", 20)
    figure.text(0.5, 0.5, textwrap.fill(text, NOTICE_LETTERS), ha="center", va="center", color=QUIET)
    return figure


def save(figure: Figure, data: pd.DataFrame, stem: Path | str) -> None:
    """Write {stem}.pdf, {stem}.png (300 dpi) and the data behind them as {stem}.csv.

    All appear, each whole, once the last is written, or none; the same figure and data give the same bytes.

    >>> save(new_figure("single", 40), pd.DataFrame({"time": [0.0, 1 / 3]}), "empty")
    >>> Path("empty.csv").read_text().split()
    ['time', '0', '0.333333']
    """
    formats: dict[str, dict[str, Any]] = {
        ".pdf": {"metadata": {"CreationDate": None, "Creator": "Trainyard", "Producer": None}},
        ".png": {"metadata": {"Software": None}},
    }
    if "time" in data:
        data = data.assign(time=data["time"].map(_clock, na_action="ignore"))
    with _settings(), ExitStack() as files:
        for suffix, options in formats.items():
            part = files.enter_context(atomic_file(f"{stem}{suffix}"))
            figure.savefig(part, dpi=PRINT_DPI, facecolor="white", **options)
        table = files.enter_context(atomic_file(f"{stem}.csv"))
        data.to_csv(table, index=False, float_format="%.6g", lineterminator="\n")


def _clock(time: float) -> str:
    """A time as text, to the tick of 10 us: six digits, as other numbers have, would be 10 ms after three hours."""
    return f"{time:.6g}" if abs(time) < 10 else f"{round(time, 5):.15g}"


@contextmanager
def _settings() -> Iterator[None]:
    """The module's settings, for as long as the block runs."""
    # Of a family, only its first face is asked for letters; the family itself is for who opens an SVG elsewhere.
    settings: dict[Any, Any] = {**SETTINGS, "font.family": [*_fonts(), "sans-serif"], "font.sans-serif": _fonts()}
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # it would say so of each letter: boxes are seen
        yield


@functools.cache
def _fonts() -> list[str]:
    """The first journal face that this machine has; matplotlib's own for glyphs that it lacks, or for everything; then
    what it has for the scripts that both lack."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [
        *[face for face in JOURNAL_FACES if face in installed][:1],
        "DejaVu Sans",
        *[face for face in OTHER_SCRIPTS if face in installed],
    ]
