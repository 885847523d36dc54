"""The figure of searches: what it says of trials that were made up to say it."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from pipeline_lib.figures import FIGURES, NothingToDrawError, make
from pipeline_lib.figures.search import data, draw


@pytest.fixture
def searches(tmp_path: Path) -> list[Path]:
    """Two searches: the loss follows the logarithm of the rate in the first, and one trial failed."""
    rng = np.random.default_rng(0)
    paths = []
    for name, trials in (("ndt", 24), ("lfads", 12)):
        rate = 10 ** rng.uniform(-4, -1, trials)
        table = pd.DataFrame(
            {
                "generation": 0,
                "member": np.arange(trials),
                "parent": pd.array([pd.NA] * trials, dtype="Int64"),
                "score": (np.log10(rate) + 2) ** 2 * (name == "ndt") + 0.3 + 0.02 * rng.random(trials),
                "learning_rate": rate,
                "dropout": rng.random(trials) * 0.3,
                "activation": rng.choice(["relu", "gelu"], trials),
                "layers": rng.integers(1, 5, trials),
            }
        )
        table.loc[table["learning_rate"] > 0.01, "score"] += 1
        table.loc[3, "score"] = np.inf
        path = tmp_path / "searches" / name / "attractor" / "trials.csv"
        path.parent.mkdir(parents=True)
        table.to_csv(path, index=False)
        paths.append(path)
    return paths


def test_the_table_has_a_row_a_trial_and_setting(searches: list[Path]) -> None:
    table = data(searches)
    assert len(table) == (24 + 12) * 4
    ndt = table[table["search"] == "ndt"]
    assert set(ndt["cohort"]) == {"attractor"} and np.isinf(ndt[ndt["trial"] == 3]["score"]).all()
    once = ndt.drop_duplicates("trial")
    assert (np.diff(once["best"]) <= 0).all() and once["best"].iloc[-1] == once["score"].min()
    correlation = ndt.drop_duplicates("setting").set_index("setting")["correlation"]
    done = once[np.isfinite(once["score"])]
    of = ndt[(ndt["setting"] == "learning_rate") & ndt["trial"].isin(done["trial"])]
    assert correlation["learning_rate"] == pytest.approx(spearmanr(of["value"], of["score"]).statistic)
    activation = ndt[ndt["setting"] == "activation"]
    assert set(zip(activation["value"], activation["label"], strict=True)) == {(0, "gelu"), (1, "relu")}


def test_settings_that_are_on_or_off_are_named_so(searches: list[Path]) -> None:
    trials = pd.read_csv(searches[0])
    trials.assign(controller=trials["member"] % 2 == 0).to_csv(searches[0], index=False)
    table = data(searches[:1])
    own = table[table["setting"] == "controller"]
    assert set(zip(own["value"], own["label"], strict=True)) == {(0, "False"), (1, "True")}
    assert pd.api.types.is_numeric_dtype(table["value"])


def test_the_settings_that_matter_are_drawn_first(searches: list[Path]) -> None:
    figure = draw(data(searches))
    assert len(figure.axes) == 8
    ndt = figure.axes[4:]
    assert ndt[0].get_xlabel() == "Trial" and ndt[1].get_xlabel() == "learning rate"
    assert ndt[1].get_xscale() == "log" and ndt[0].get_ylabel() == "Validation loss"


def test_where_no_trial_failed_the_panels_fill_the_figure(searches: list[Path]) -> None:
    """Crosses of no trial lay at the corner of the figure, and what reached there left panels no width."""
    trials = pd.read_csv(searches[1])
    trials.assign(score=np.linspace(0.3, 0.4, len(trials))).to_csv(searches[1], index=False)
    figure = draw(data(searches[1:]))
    figure.draw_without_rendering()
    assert sum(axes.get_position().width for axes in figure.axes) > 0.7


def test_it_can_be_drawn_again_from_its_csv(searches: list[Path], tmp_path: Path) -> None:
    make("search", {"searches": searches}, tmp_path / "search")
    again = draw(pd.read_csv(tmp_path / "search.csv"))
    assert [axes.get_xlabel() for axes in again.axes] == [axes.get_xlabel() for axes in draw(data(searches)).axes]


def test_settings_that_are_all_numbers_are_drawn_from_csv_without_a_warning(
    searches: list[Path], tmp_path: Path
) -> None:
    """Their labels, all empty, come back as missing numbers, which pandas will not fill with text for much longer."""
    table = data(searches)
    table[table["setting"] != "activation"].to_csv(tmp_path / "search.csv", index=False)
    with warnings.catch_warnings(action="error"):
        assert len(draw(pd.read_csv(tmp_path / "search.csv")).axes) == 8


def test_without_a_search_the_figure_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingToDrawError):
        data([])
    make("search", {"searches": []}, tmp_path / "search")
    assert "No search" in (tmp_path / "search.csv").read_text()
    assert FIGURES["search"].caption
