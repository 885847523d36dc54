"""Latent trajectories: published latents go first, log-rates stand in, single windows where there are no trials."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.figures import NothingToDrawError, latents
from pipeline_lib.figures.embedding import principal_components
from pipeline_lib.figures.excerpts import coarsen_trials
from pipeline_lib.recording import Recording
from pipeline_lib.trains.splits import Split
from tests.figures.made_up_results import Results, write_fit


def test_published_latents_come_first_and_a_constant_rate_never(
    trials: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = latents.data(trials.split, trials.trains, trials.fits)
    sources = table.drop_duplicates("model").set_index("model")["source"]
    assert sources["glm"] == "latents" and sources["smoothing"] == "log-rates" and "mean_rate" not in sources
    monkeypatch.setattr(latents, "SHOWN_MODELS", 1)
    assert set(latents.data(trials.split, trials.trains, trials.fits)["model"]) == {"glm"}
    shares = table[table["kind"] == "share"][["pc1", "pc2", "pc3"]].to_numpy()
    assert (np.diff(shares, axis=1) <= 0).all() and (shares.sum(axis=1) <= 1 + 1e-9).all()


def test_a_mean_trajectory_is_the_mean_of_the_windows_of_its_condition(trials: Results) -> None:
    table = latents.data(trials.split, trials.trains, trials.fits)
    fit = next(fit for fit in trials.fits if fit.parent.name == "glm")
    group = zarr.open_group(str(fit / "predictions.zarr"), mode="r")[trials.session]
    test = Split.read(trials.split).part(trials.session, "test")
    values = (
        group["latents"][:]
        .astype(float)[np.isin(group["sample"][:], test.index)]
        .reshape(len(test), 50, 4, -1)
        .mean(axis=2)
    )
    centred = values - values.reshape(-1, 4).mean(axis=0)
    loadings = np.linalg.svd(centred.reshape(-1, 4), full_matrices=False)[2][0]
    scores = centred @ loadings
    for condition, path in table[(table["kind"] == "condition") & (table["model"] == "glm")].groupby("condition"):
        mean = scores[(test["condition"] == condition).to_numpy()].mean(axis=0)
        assert np.allclose(np.abs(path["pc1"]), np.abs(mean), rtol=1e-4, atol=1e-5)


def test_continuous_windows_show_a_window_of_each_third(continuous: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "LEAST_POINTS", 4)
    table = latents.data(continuous.split, continuous.trains, continuous.fits)
    paths = table[(table["kind"] == "condition") & (table["model"] == "smoothing")]
    assert sorted(paths["condition"].unique()) == ["1st third", "2nd third", "3rd third"]
    fit = next(fit for fit in continuous.fits if fit.parent.name == "smoothing")
    group = zarr.open_group(str(fit / "predictions.zarr"), mode="r")[continuous.session]
    test = Split.read(continuous.split).part(continuous.session, "test")
    rates = group["rates"][:][[list(group["sample"][:]).index(sample) for sample in test.index]].astype(float)
    coarse, _ = coarsen_trials(np.log(np.maximum(rates, 1e-4)), latents.SHOWN_BINS)
    scores = principal_components(coarse.reshape(-1, coarse.shape[2]))[0].reshape(*coarse.shape[:2], 3)
    first = np.flatnonzero(test["start_tick"].rank() <= len(test) / 3)
    path = paths[paths["condition"] == "1st third"]
    assert np.allclose(path["pc1"], scores[first[len(first) // 2], :, 0]), "one window, not their mean"
    points = table[(table["kind"] == "point") & (table["model"] == "smoothing")]
    assert len(points) == len(test)
    starts = pd.Series(test["start_tick"].to_numpy()).loc[points["window"].astype(int)].to_numpy()
    order = points.assign(start=starts).groupby("condition")["start"].agg(["min", "max"])
    assert (order["max"].to_numpy()[:-1] < order["min"].to_numpy()[1:]).all()


@pytest.mark.parametrize(("enough", "columns"), [(4, 3), (10, 2)])
def test_windows_are_set_beside_each_other_where_there_are_enough(
    continuous: Results, monkeypatch: pytest.MonkeyPatch, enough: int, columns: int
) -> None:
    monkeypatch.setattr(latents, "LEAST_POINTS", enough)
    table = latents.data(continuous.split, continuous.trains, continuous.fits)
    assert len(latents.draw(table).axes) == columns * table["model"].nunique()


def test_a_model_that_never_moves_has_no_trajectory(trials: Results) -> None:
    constant = [fit for fit in trials.fits if fit.parent.name == "mean_rate"]
    with pytest.raises(NothingToDrawError, match="vary within a window"):
        latents.data(trials.split, trials.trains, constant)


def test_time_counts_from_the_event(around_event: Results) -> None:
    table = latents.data(around_event.split, around_event.trains, around_event.fits)
    times = table.loc[table["kind"] == "condition", "time"]
    assert times.min() == pytest.approx(-0.2 + 1.2 / 48 / 2, abs=0.003) and times.max() == pytest.approx(1.0, abs=0.02)


def test_windows_that_end_early_are_means_of_what_there_is_and_no_points(trials: Results, tmp_path: Path) -> None:
    split = Split.read(trials.split)
    test = split.part(trials.session, "test").index
    split.samples.loc[test[:3], "bins"] = 100
    split.write(tmp_path / "split.parquet")
    fit = write_fit(tmp_path, Recording.read(trials.recording), split, "glm", 0)
    table = latents.data(tmp_path / "split.parquet", trials.trains, [fit])
    assert sorted(table.loc[table["kind"] == "point", "window"]) == list(range(3, len(test)))
    paths = table[table["kind"] == "condition"]
    assert np.isfinite(paths[["pc1", "pc2", "pc3", "time"]].to_numpy(dtype=float)).all()
