"""The figure of what simulations know, from a made-up table of scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import NothingToDrawError
from pipeline_lib.figures.truth_recovery import FLOOR, data, draw
from tests.figures.test_figure_drawing import assert_readable

KINDS = (("rate_r2", "heldin", 0.9), ("rate_r2", "heldout", 0.6), ("latent_r2", "all", 0.8))


def write(path: Path, sessions: int) -> Path:
    """Two seeds of three models; the PSTH is far off, and only the NDT has latents."""
    rows = [
        {"cohort": cohort, "session": f"s{number}", "model": model, "seed": seed, "split": split, "units": units}
        | {"metric": metric, "value": -9.0 if model == "psth" else value - 0.01 * seed, "ci_low": 0.5, "ci_high": 0.95}
        for number in range(sessions)
        for cohort in (["s0", "both"] if number == 0 else [f"s{number}"])
        for model in ("psth", "smoothing", "ndt")
        for seed in (0, 1)
        for split in ("validation", "test")
        for metric, units, value in KINDS
        if metric == "rate_r2" or model == "ndt"
    ]
    rows += [rows[0] | {"metric": "bits_per_spike"}, rows[1] | {"model": "glm", "value": np.nan, "split": "test"}]
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_the_table_holds_what_compares_with_the_truth_on_the_test_part(tmp_path: Path) -> None:
    table = data(write(tmp_path / "metrics.parquet", 2))
    assert len(table) == 3 * 2 * (3 * 2 + 1) and set(table["session"]) == {"s0", "s0, both", "s1"}
    assert set(table["model"]) == {"psth", "smoothing", "ndt"} and table["value"].notna().all()
    pd.DataFrame({"metric": ["bits_per_spike"], "units": "all", "split": "test", "value": 1.0}).to_parquet(
        tmp_path / "real.parquet"
    )
    with pytest.raises(NothingToDrawError, match="knows its true rates"):
        data(tmp_path / "real.parquet")


@pytest.mark.parametrize(("sessions", "rows"), [(2, 3 * 4), (8, 3)])
def test_scores_stand_by_session_or_by_model_where_sessions_are_many(tmp_path: Path, sessions: int, rows: int) -> None:
    figure = draw(data(write(tmp_path / "metrics.parquet", sessions)))
    assert_readable(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Rates, held-in units",
        "Rates, held-out units",
        "Latents",
    ]
    assert len(figure.axes[0].get_yticks()) == rows
    arrows = [line.get_xdata() for line in figure.axes[0].lines if line.get_marker() == "<" and len(line.get_xdata())]
    assert set(np.concatenate(arrows)) == {FLOOR} and sum(map(len, arrows)) == 2 * (sessions + 1)
    points = np.concatenate([line.get_xdata() for line in figure.axes[2].lines if line.get_marker() == "o"])
    assert sorted(points) == pytest.approx(sorted([0.8, 0.79] * (sessions + 1)))
