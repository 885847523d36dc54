"""The figure of decoding, from a made-up table of scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.decoding import data, draw


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    targets = {
        "decoding_wheel_r2": ("", 0.5),
        "decoding_choice_balanced_accuracy": ("chance 1/2", 0.75),
        "decoding_pace_speed_correlation": ("", -0.4),
    }
    rows = [
        {
            "cohort": session,
            "session": session,
            "model": model,
            "seed": 0,
            "split": split,
            "units": units,
            "metric": metric,
            "value": middle + 0.1 * rng.standard_normal(),
            "ci_low": middle - 0.1,
            "ci_high": middle + 0.1,
            "null": null,
        }
        for session in ("mouse_a", "mouse_b")
        for model in ("mean_rate", "gpfa", "ndt")
        for metric, (null, middle) in targets.items()
        for split, units in (("test", "all"), ("test", "latents"), ("validation", "all"))
    ]
    rows.append(rows[0] | {"metric": "bits_per_spike"})
    rows.append(rows[0] | {"model": "psth", "value": np.nan})
    pd.DataFrame(rows).to_parquet(tmp_path / "metrics.parquet")
    return tmp_path / "metrics.parquet"


def test_the_table_holds_finite_scores_of_the_test_part(metrics: Path) -> None:
    table = data(metrics)
    assert len(table) == 2 * 3 * 3 and set(table["model"]) == {"mean_rate", "gpfa", "ndt"}
    kinds = table.drop_duplicates("target").set_index("target")
    assert kinds["kind"].to_dict() == {"choice": "Balanced accuracy", "pace": "Correlation", "wheel": "R\u00b2"}
    assert kinds["chance"]["choice"] == 0.5 and np.isnan(kinds["chance"]["wheel"])


def test_a_panel_a_target_with_chance_where_there_is_one(metrics: Path) -> None:
    figure = draw(data(metrics))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["choice", "pace", "wheel"]
    lines = [axes.lines[-1] for axes in figure.axes]
    assert list(lines[0].get_xdata()) == [0.5, 0.5] and list(lines[2].get_xdata()) == [0.0, 0.0]


def test_sessions_with_more_classes_have_a_chance_of_their_own(metrics: Path, tmp_path: Path) -> None:
    scores = pd.read_parquet(metrics)
    scores.loc[(scores["session"] == "mouse_b") & (scores["null"] != ""), "null"] = "chance 1/8"
    scores.to_parquet(tmp_path / "mixed.parquet")
    choice, pace, _ = draw(data(tmp_path / "mixed.parquet")).axes
    assert {line.get_xdata()[0] for line in choice.lines if len(set(line.get_xdata())) == 1} == {0.5, 0.125}
    assert list(pace.lines[-1].get_xdata()) == [0.0, 0.0]


def test_nothing_decoded_is_said(metrics: Path, tmp_path: Path) -> None:
    scores = pd.read_parquet(metrics)
    scores[scores["metric"] == "bits_per_spike"].to_parquet(tmp_path / "none.parquet")
    with pytest.raises(NothingToDrawError, match="names no target"):
        data(tmp_path / "none.parquet")
    scores.assign(value=np.nan).to_parquet(tmp_path / "absent.parquet")  # a slip in a name, most often
    with pytest.raises(NothingToDrawError, match="no session has enough of choice, pace, wheel"):
        data(tmp_path / "absent.parquet")
