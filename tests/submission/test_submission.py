"""Submissions: the layouts of the benchmarks, from predictions that can be told apart by their numbers."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from safetensors import safe_open
from safetensors.numpy import load_file

from pipeline_lib.__main__ import main
from pipeline_lib.errors import InputError
from pipeline_lib.submission import brain_wide_bench, nlb
from pipeline_lib.trains.settings import WindowSettings
from pipeline_lib.trains.splits import Split
from tests.small_cohort import SPLITS, UNITS, WINDOWS, recording, write_cohort

FORWARD, BINS = 5, 50


class Fit:
    """A cohort, and predictions whose rates are sample + bin / 100 + unit / 10,000."""

    def __init__(self, directory: Path) -> None:
        (self.trains,), self.split_path = write_cohort(directory)
        self.split = Split.read(self.split_path)
        self.heldout = self.split.heldout["small0"]
        self.heldin = np.setdiff1d(np.arange(UNITS), self.heldout)
        for name, parts in (("fit", ["validation", "test"]), ("train", ["train"])):
            samples = self.split.samples[self.split.samples["split"].isin(parts)].index.to_numpy()[::-1]
            group = zarr.open_group(str(directory / name / "predictions.zarr"), mode="w").create_group("small0")
            group.create_array("rates", data=self.rates(samples, np.arange(BINS), np.arange(UNITS)))
            group.create_array("sample", data=samples)
        self.fit, self.train = directory / "fit", directory / "train"

    def rates(self, samples: np.ndarray, bins: np.ndarray, units: np.ndarray) -> np.ndarray:
        return (samples[:, None, None] + bins[:, None] / 100 + units / 10_000).astype(np.float32)


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    return Fit(tmp_path_factory.mktemp("fit"))


def test_a_submission_has_every_array_in_the_order_of_trials_bins_and_units(fit: Fit, tmp_path: Path) -> None:
    out = tmp_path / "submission.h5"
    arguments = ["--fit", fit.fit, "--trains", fit.trains, "--split", fit.split_path, "--train", fit.train]
    assert main([str(each) for each in ["export", "nlb", *arguments, "--name", "mc_maze", "--out", out]]) == 0
    parts = fit.split.samples["split"]
    test, train = np.flatnonzero(parts == "test"), np.flatnonzero(parts != "test")
    now, later = np.arange(BINS - FORWARD), np.arange(BINS - FORWARD, BINS)
    expected = {
        "eval_rates_heldin": fit.rates(test, now, fit.heldin),
        "eval_rates_heldout": fit.rates(test, now, fit.heldout),
        "eval_rates_heldin_forward": fit.rates(test, later, fit.heldin),
        "eval_rates_heldout_forward": fit.rates(test, later, fit.heldout),
        "train_rates_heldin": fit.rates(train, now, fit.heldin),
        "train_rates_heldout": fit.rates(train, now, fit.heldout),
    }
    with h5py.File(out) as file:
        assert set(file) == {"mc_maze"} and set(file["mc_maze"]) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(file[f"mc_maze/{name}"][:], array)


def test_several_datasets_share_a_file(fit: Fit, tmp_path: Path) -> None:
    out = tmp_path / "submission.h5"
    for name in ("a", "b", "a"):
        nlb.write(fit.fit, [fit.trains], fit.split_path, out, name=name)
    with h5py.File(out) as file:
        assert set(file) == {"a", "b"} and "train_rates_heldin" not in file["a"]


def test_a_file_of_another_kind_is_kept(fit: Fit, tmp_path: Path) -> None:
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: file"):
        nlb.write(fit.fit, [fit.trains], fit.split_path, out)
    assert out.read_text() == "mine"


def test_missing_predictions_are_named(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every train window"):
        nlb.write(fit.fit, [fit.trains], fit.split_path, tmp_path / "s.h5", train_dir=fit.fit)
    with pytest.raises(InputError, match=r"predictions\.zarr: found no such store"):
        nlb.write(tmp_path, [fit.trains], fit.split_path, tmp_path / "s.h5")
    zarr.open_group(str(tmp_path / "predictions.zarr"), mode="w").create_group("other")
    with pytest.raises(InputError, match=r"predictions\.zarr: small0: found no such group"):
        nlb.write(tmp_path, [fit.trains], fit.split_path, tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()


def test_predictions_of_some_windows_are_no_submission(fit: Fit, tmp_path: Path) -> None:
    test = fit.split.part("small0", "test").index.to_numpy()
    group = zarr.open_group(str(tmp_path / "predictions.zarr"), mode="w").create_group("small0")
    group.create_array("rates", data=fit.rates(test[1:], np.arange(BINS), np.arange(UNITS)))
    group.create_array("sample", data=test[1:])
    with pytest.raises(InputError, match="not all of test"):
        nlb.write(tmp_path, [fit.trains], fit.split_path, tmp_path / "s.h5")


def test_tasks_are_aligned_by_trial(fit: Fit, tmp_path: Path) -> None:
    brain_wide_bench.write(fit.fit, [fit.trains], fit.split_path, tmp_path, seed=3)
    test = fit.split.part("small0", "test")
    found = load_file(tmp_path / "co_smoothing/small0/seed_3.safetensors")
    np.testing.assert_array_equal(found["trial_id"], test["trial"])
    np.testing.assert_array_equal(found["unit"], fit.heldout)
    expected = fit.rates(test.index.to_numpy(), np.arange(BINS - FORWARD), fit.heldout)
    np.testing.assert_array_equal(found["prediction"], expected)
    ahead = load_file(tmp_path / "forecasting/small0/seed_3.safetensors")
    later = np.arange(BINS - FORWARD, BINS)
    np.testing.assert_array_equal(ahead["prediction"], fit.rates(test.index.to_numpy(), later, np.arange(UNITS)))
    np.testing.assert_array_equal(ahead["unit"], np.arange(UNITS))
    with safe_open(tmp_path / "forecasting/small0/seed_3.safetensors", "np") as file:
        assert file.metadata() == {"bin_size_ms": "20.0", "session": "small0"}


def test_windows_of_no_trial_are_told_apart_by_their_number(tmp_path: Path) -> None:
    windows = WindowSettings(bin_size=20.0, mode="continuous", length=1.0)
    stores, split_path = write_cohort(tmp_path, windows, replace(SPLITS, block=3.0))
    samples = Split.read(split_path).part("small0", "test")
    group = zarr.open_group(str(tmp_path / "fit" / "predictions.zarr"), mode="w").create_group("small0")
    group.create_array("rates", data=np.ones((len(samples), BINS, UNITS), np.float32))
    group.create_array("sample", data=samples.index.to_numpy())
    brain_wide_bench.write(tmp_path / "fit", stores, split_path, tmp_path)
    for task in ("co_smoothing", "forecasting"):
        found = load_file(tmp_path / task / "small0/seed_0.safetensors")["trial_id"]
        np.testing.assert_array_equal(found, samples.index)
        assert len(set(found)) == len(samples) > 3


def test_the_bins_to_forecast_end_each_trial_however_long_it_is(tmp_path: Path) -> None:
    made = recording("small0", trials=40)
    made.trials["stop"] = made.trials["start"] + np.where(np.arange(40) % 2, 1.0, 0.6)
    stores, split_path = write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, [made])
    samples = Split.read(split_path).part("small0", "test")
    bins, position = samples["bins"].to_numpy()[:, None], np.arange(BINS)
    assert set(bins.ravel()) == {30, 50}
    rates = np.where(position < bins, position, np.nan)[:, :, None] * np.ones(UNITS, np.float32)
    group = zarr.open_group(str(tmp_path / "fit" / "predictions.zarr"), mode="w").create_group("small0")
    group.create_array("rates", data=rates)
    group.create_array("sample", data=samples.index.to_numpy())
    with pytest.raises(InputError, match="windows of different length; accepted: windows of one length"):
        nlb.write(tmp_path / "fit", stores, split_path, tmp_path / "s.h5")
    brain_wide_bench.write(tmp_path / "fit", stores, split_path, tmp_path)
    window, ahead = (
        load_file(tmp_path / f"{task}/small0/seed_0.safetensors")["prediction"][:, :, 0]
        for task in ("co_smoothing", "forecasting")
    )
    now = position[: BINS - FORWARD]
    np.testing.assert_array_equal(window, np.where(now < bins - FORWARD, now, np.nan))
    np.testing.assert_array_equal(ahead, bins - FORWARD + np.arange(FORWARD))


def test_a_split_that_poses_no_task_is_refused(tmp_path: Path) -> None:
    stores, split_path = write_cohort(tmp_path, WINDOWS, replace(SPLITS, heldout_units=0, forward=0.0))
    samples = Split.read(split_path).samples
    group = zarr.open_group(str(tmp_path / "fit" / "predictions.zarr"), mode="w").create_group("small0")
    group.create_array("rates", data=np.ones((len(samples), BINS, UNITS), np.float32))
    group.create_array("sample", data=samples.index.to_numpy())
    with pytest.raises(InputError, match="heldout_units"):
        brain_wide_bench.write(tmp_path / "fit", stores, split_path, tmp_path / "out")


def test_from_the_benchmarks_files_to_a_submission(tmp_path: Path) -> None:
    """Read, convert, split, fit, predict, export: shapes and order are those of the files."""
    rng = np.random.default_rng(0)
    spikes = {
        f"train_spikes_{units}{time}": rng.poisson(0.5, (20, bins, size))
        for units, size in (("heldin", 5), ("heldout", 2))
        for time, bins in (("", 10), ("_forward", 4))
    }
    spikes["eval_spikes_heldin"] = rng.poisson(0.5, (6, 10, 5))
    (tmp_path / "maze").mkdir()
    with h5py.File(tmp_path / "maze/input.h5", "w") as file:
        for name, array in spikes.items():
            file[name] = array.astype(np.float32)
    at = {name: str(tmp_path / name) for name in ("maze", "recording", "trains", "split.parquet", "fit", "train")}
    windows, splits = "{bin_size: 5, after: 0.07}", "{scheme: column, heldout_units: heldout, forward: 0.02}"
    data = ["--trains", at["trains"], "--split", at["split.parquet"]]
    for arguments in (
        ["record", "--session", "maze", "--source", "nlb", "--location", at["maze"], "--out", at["recording"]],
        ["convert", "--recording", at["recording"], "--out", at["trains"]],
        ["split", *data[:2], "--cohort", "maze", "--windows", windows, "--splits", splits, "--out", data[3]],
        ["fit", *data, "--model", "mean_rate", "--out", at["fit"]],
        ["predict", *data, "--fit", at["fit"], "--out", at["train"]],
        ["export", "nlb", *data, "--fit", at["fit"], "--train", at["train"], "--out", str(tmp_path / "s.h5")],
    ):
        assert main(arguments) == 0
    with h5py.File(tmp_path / "s.h5") as file:
        shapes = {name: array.shape for name, array in file["maze"].items()}
        rates = file["maze/eval_rates_heldout"][0, 0]
    assert shapes == {
        "eval_rates_heldin": (6, 10, 5),
        "eval_rates_heldout": (6, 10, 2),
        "eval_rates_heldin_forward": (6, 4, 5),
        "eval_rates_heldout_forward": (6, 4, 2),
        "train_rates_heldin": (20, 10, 5),
        "train_rates_heldout": (20, 10, 2),
    }
    whole = np.concatenate([spikes["train_spikes_heldout"], spikes["train_spikes_heldout_forward"]], axis=1)
    train = np.flatnonzero(Split.read(at["split.parquet"]).samples["split"] == "train")
    np.testing.assert_allclose(rates, whole[train].mean(axis=(0, 1)), rtol=1e-6)
