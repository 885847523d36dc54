"""The tables of scores on the page: who is best, and means that compare like with like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.report import build_report
from pipeline_lib.report.scores import Row, ScoreTable, Standing, read_scores
from tests.figures.made_up_results import made_up_metrics
from tests.report.conftest import Folder


def test_one_model_is_best_whatever_its_seeds_add_up_to(tmp_path: Path) -> None:
    """Two ways to take a mean differ in the last digit, and the best model then was nobody."""
    rng = np.random.default_rng(0)
    table = pd.concat([made_up_metrics(session, 0) for session in ("a", "b", "c")], ignore_index=True)
    table = table[table["seed"] == 0]
    for _ in range(10):
        seeds = [table.assign(seed=seed, value=rng.random(len(table))) for seed in range(3)]
        pd.concat(seeds).to_parquet(tmp_path / "metrics.parquet")
        found = read_scores(tmp_path / "metrics.parquet")
        for rows, best in ((found.rows, 3), (found.standings, 1)):
            for column, name in enumerate(found.columns):
                assert sum(row.cells[column].best for row in rows) == (best if "held-out" in name else 0)


def test_copying_what_it_was_shown_makes_no_model_the_best(tmp_path: Path) -> None:
    table = pd.concat([made_up_metrics(session, 0) for session in ("a", "b")])
    table["value"] = np.where((table["model"] == "glm") == (table["units"] == "heldin"), 1.0, -1.0)
    names = "Bits per spike, held-in units", "Bits per spike, held-out units"
    for kept, best in (({"heldin", "heldout"}, [False, False]), ({"heldin"}, [True])):
        table[table["units"].isin(kept)].to_parquet(tmp_path / "metrics.parquet")
        found = read_scores(tmp_path / "metrics.parquet")
        assert found.columns == list(names[: len(best)])
        for rows in (found.rows, found.standings):
            assert all([cell.best for cell in row.cells] == best for row in rows if row.model == "glm")
            assert any(row.cells[-1].best for row in rows)
    table[(table["units"] != "heldout") | (table["session"] == "a")].to_parquet(tmp_path / "metrics.parquet")
    best = {
        row.session: row.cells[0].best for row in read_scores(tmp_path / "metrics.parquet").rows if row.model == "glm"
    }
    assert best == {"a": False, "b": True}, "where none were held out there is nothing else to go by"


def test_a_model_of_more_cohorts_is_not_best_for_it(tmp_path: Path) -> None:
    table = pd.concat([made_up_metrics(session, 0) for session in ("a", "b")]).assign(value=0.1)
    easier = table[table["model"] == "glm"].assign(cohort="joint", value=0.5)
    elsewhere = easier.assign(model="lfads", value=0.2)
    pd.concat([table, easier, elsewhere]).to_parquet(tmp_path / "metrics.parquet")
    values = {row.model: row.cells[0].value for row in read_scores(tmp_path / "metrics.parquet").standings}
    assert values.pop("lfads") == pytest.approx(0.2), "of a model that is in no other cohort, what there is"
    assert set(values) == {"mean_rate", "psth", "smoothing", "glm"}
    assert list(values.values()) == pytest.approx([0.1] * 4)


def test_intervals_over_sessions_are_spoken_of_where_there_are_some(folder: Folder, tmp_path: Path) -> None:
    """A page of two recordings whose scores are of five sessions, and the other way round."""
    for sessions, said in ((2, False), (5, True)):
        table = pd.concat([made_up_metrics(session, 0) for session in "abcde"[:sessions]])
        table.to_parquet(tmp_path / "metrics.parquet")
        assert read_scores(tmp_path / "metrics.parquet").has_intervals == said
        build_report(folder.results, tmp_path / "page.html", metrics=tmp_path / "metrics.parquet")
        assert ("bootstrap intervals over sessions" in (tmp_path / "page.html").read_text()) == said


def test_a_model_that_failed_in_a_hard_session_is_not_the_best(tmp_path: Path) -> None:
    table = pd.concat([made_up_metrics(session, 0).assign(value=value) for session, value in (("a", 0.1), ("b", 0.5))])
    table["value"] += 0.01 * (table["model"] == "psth")
    table[(table["model"] != "glm") | (table["session"] == "b")].to_parquet(tmp_path / "metrics.parquet")
    standings = {row.model: row.cells[1] for row in read_scores(tmp_path / "metrics.parquet").standings}
    assert standings["glm"].value == pytest.approx(0.5) and standings["psth"].value == pytest.approx(0.31)
    assert [model for model, cell in standings.items() if cell.best] == ["psth"]
    assert all(0 <= place <= 100 for cell in standings.values() for place in cell.places)


def test_scores_without_intervals_have_no_empty_brackets(tmp_path: Path) -> None:
    made_up_metrics("a", 0).assign(ci_low=np.nan, ci_high=np.nan).to_parquet(tmp_path / "metrics.parquet")
    build_report(tmp_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert 'class="number score' in html and "(\u2013 to \u2013)" not in html


@pytest.mark.parametrize(("windows", "said"), [(60, False), (6, False), (5, True)])
def test_intervals_over_few_windows_are_not_taken_for_what_they_are_not(
    windows: int, said: bool, tmp_path: Path
) -> None:
    table = made_up_metrics("a", 0)
    pooled = table["aggregation"] == "pooled"
    few = table.assign(n=table["n"].where(~pooled | (table["model"] != "glm"), windows))
    few.to_parquet(tmp_path / "metrics.parquet")
    build_report(tmp_path, tmp_path / "report.html")
    assert ("over few windows hold the truth less often" in (tmp_path / "report.html").read_text()) == said
    few.assign(ci_low=np.nan, ci_high=np.nan).to_parquet(tmp_path / "metrics.parquet")
    build_report(tmp_path, tmp_path / "report.html")
    assert "over few windows" not in (tmp_path / "report.html").read_text()


def test_the_page_says_whose_fits_the_figures_of_a_session_show(folder: Folder) -> None:
    build_report(folder.results, folder.results / "seeds.html")
    assert "the fits of the first seed" in (folder.results / "seeds.html").read_text()


def _by_hand(folder: Path, *scores: tuple[str, int, float, float, float]) -> ScoreTable:
    """Of one session: model, seed, value and interval; without an interval the score is over two windows."""
    row = made_up_metrics("a", 0).iloc[0].to_dict()
    names = ("model", "seed", "value", "ci_low", "ci_high")
    rows = [row | dict(zip(names, score, strict=True)) | {"n": 2 if np.isnan(score[3]) else 18} for score in scores]
    pd.DataFrame(rows).to_parquet(folder / "metrics.parquet")
    return read_scores(folder / "metrics.parquet")


def test_intervals_are_drawn_on_the_scale_of_their_column(tmp_path: Path) -> None:
    """From as far below 0 as the best lies above; the interval of a model spans those of its seeds."""
    seeds = ("glm", 0, 1.0, 0.8, 1.1), ("glm", 1, 2.0, 1.5, 3.0)
    found = _by_hand(tmp_path, *seeds, ("psth", 0, -10.0, -12.0, -9.0), ("mean_rate", 0, 0.0, np.nan, np.nan))
    cells = {row.model: row.cells[0] for row in found.rows}
    assert (cells["glm"].value, cells["glm"].low, cells["glm"].high) == (1.5, 0.8, 3.0)
    assert cells["glm"].places == (63.3, 75.0, 100.0, 50.0)
    assert cells["psth"].places == (0.0, 0.0, 0.0, 50.0)
    assert cells["mean_rate"].places == (0.0, 50.0, 0.0, 50.0)
    assert found.fewest == 18, "not of a score without an interval"
    assert {row.model: row.wins for row in found.standings} == {
        "glm": [(1, 1)],
        "psth": [(0, 1)],
        "mean_rate": [(0, 1)],
    }
    (only,) = _by_hand(tmp_path, ("psth", 0, -2.0, -3.0, -1.0)).rows
    assert only.cells[0].places == (0.0, 0.0, 0.0, 50.0), "where nothing is above 0"


def test_what_does_not_fit_on_the_page_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.report.scores.SHOWN_ROWS", 2)
    found = _by_hand(tmp_path, *((model, seed, 0.1, 0.0, 0.2) for model in ("glm", "psth", "ndt") for seed in (0, 1)))
    assert (len(found.rows), found.rows_left_out) == (2, 1)
    assert (len(found.everything), found.left_out) == (2, 4)


def test_averaged_rates_have_a_row_of_their_own(tmp_path: Path) -> None:
    """Of the others everything stays: who is the best, too, for several fits together are no model of the race."""
    table = made_up_metrics("a", 0)
    table.to_parquet(tmp_path / "metrics.parquet")
    before, standings = _rows(tmp_path)
    build_report(tmp_path, tmp_path / "report.html")
    assert "rates averaged" not in (tmp_path / "report.html").read_text()
    rows = table[(table["model"] == "glm") & (table["seed"] == 0)]
    rows = rows.assign(model="glm:mean", value=9.9, seed=pd.Series(pd.NA, rows.index, dtype="Int64"))
    pd.concat([table, rows]).to_parquet(tmp_path / "metrics.parquet")
    found, standing = _rows(tmp_path)
    assert found.pop("glm:mean") == (0, [(9.9, False)] * 2) and found == before
    assert standing.pop("glm:mean") == ([(9.9, False)] * 2, [None, None]) and standing == standings
    build_report(tmp_path, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert "GLM, rates averaged" in html and "Rows called rates averaged" in html and "NA" not in html
    assert html.count('">mean</td>') == 1 + len(rows), "in the place of the seed, and of how many there are"


def _rows(folder: Path) -> tuple[dict, dict]:
    """By model: seeds and cells of its only session, cells and wins over all."""
    found = read_scores(folder / "metrics.parquet")
    rows = {row.model: (row.seeds, _cells(row)) for row in found.rows}
    return rows, {row.model: (_cells(row), row.wins) for row in found.standings}


def _cells(row: Row | Standing) -> list[tuple[float, bool]]:
    return [(cell.value, cell.best) for cell in row.cells]
