"""Scores of the Neural Latents Benchmark from its own files, against its formulas written out once more."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.parts import Part
from pipeline_lib.evaluation.responses import Responses, response_rows
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.recording import Recording
from pipeline_lib.sources import read_source
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.store import Trains
from tests.evaluation.made_up_fit import name_fit
from tests.evaluation.test_evaluate import KEYS, Cohort, value

TRAIN, EVAL, BINS, FORWARD, HELDIN, HELDOUT, CONDITIONS = 40, 25, 16, 4, 5, 3, 6
UNITS, MOST = HELDIN + HELDOUT, 3
"""`MOST`: bins of jitter; as many of the true responses are not known at either end."""
WINDOWS = WindowSettings(bin_size=5.0, after=(BINS + FORWARD) * 0.005)
SPLITS = SplitSettings(scheme="column", heldout_units="heldout", forward=FORWARD * 0.005)


def targets() -> dict[str, object]:
    """True responses, the trials of each condition (of one no eval trial, of one trial no condition), and jitter."""
    rng = np.random.default_rng(1)
    psth = rng.gamma(3.0, 0.1, (CONDITIONS, BINS, UNITS)).astype(np.float32)
    psth[:, :MOST] = psth[:, -MOST:] = np.nan
    psth[3, BINS - MOST - 4 :] = np.nan  # its shortest trial
    psth[:, MOST:-MOST, 2] = np.where(np.isnan(psth[:, MOST:-MOST, 2]), np.nan, 0)  # a unit that never spikes
    made: dict[str, object] = {"psth": psth}
    for part, trials in (("train", TRAIN), ("eval", EVAL)):
        own = rng.integers(CONDITIONS, size=trials)
        own[own == 4] = 5 if part == "eval" else 4
        own[7] = -1
        made[f"{part}_cond_idx"] = [np.flatnonzero(own == each).astype(np.int32) for each in range(CONDITIONS)]
        made[f"{part}_jitter"] = rng.integers(-MOST, MOST + 1, trials).astype(np.int32)
    return made


def write(directory: Path, change: dict[str, object] | None = None) -> Path:
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True)
    with h5py.File(directory / "input.h5", "w") as file:
        for part, trials in (("train", TRAIN), ("eval", EVAL)):
            for group, units in (("heldin", HELDIN), ("heldout", HELDOUT)):
                for time, bins in (("", BINS), ("_forward", FORWARD)):
                    counts = rng.poisson(0.4, (trials, bins, units)).astype(float)
                    counts[..., 2] *= group == "heldout"
                    counts[:3, :2] = np.nan  # as before the first event of a trial
                    name = f"{part}_spikes_{group}{time}"
                    if name not in (change or {}):
                        file[name] = counts
    with h5py.File(directory / "target.h5", "w") as file:
        for name, array in (targets() | (change or {})).items():
            if isinstance(array, list):
                ragged = file.create_dataset(f"set/{name}", len(array), h5py.vlen_dtype(np.int32))
                for row, own in enumerate(array):
                    ragged[row] = own
            elif array is not None:
                file[f"set/{name}"] = array
    return directory


def predictions(folder: Path, sample: np.ndarray, rates: np.ndarray) -> Path:
    group = zarr.open_group(str(folder / "predictions.zarr"), mode="w", attributes={"sees": ""}).create_group("rsg")
    group.create_array("rates", data=rates)
    group.create_array("sample", data=sample.astype(np.int64))
    return folder


def decoded(cohort: Cohort, rates: np.ndarray, target: Target) -> float:
    """Score of `rates` [trial, bin, unit] of all trials: those of the training part are predicted apart."""
    samples = cohort.split.samples
    fits = []
    for name, chosen in (("fit", samples["split"] != "train"), ("train", samples["split"] == "train")):
        own = rates[samples["trial"][chosen].to_numpy()]
        fits.append(predictions(cohort.directory / name, samples.index[chosen].to_numpy(), own))
    out = cohort.directory / "decoded.parquet"
    scoring = Scoring([cohort.trains], cohort.split_path, [cohort.recording], 0, decoding={"it": target})
    evaluate(name_fit(fits[0]), scoring, out, fits[1])
    table = pd.read_parquet(out)
    (found,) = table[table["metric"].str.startswith("decoding_it")]["value"]
    return float(found)


def read(directory: Path, change: dict[str, object] | None = None, **options: object) -> Recording:
    return read_source("nlb", "rsg", write(directory, change), options)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    directory = tmp_path_factory.mktemp("nlb")
    return Cohort(directory, read(directory / "files"), WINDOWS, SPLITS)


def made_up(cohort: Cohort) -> np.ndarray:
    return np.random.default_rng(2).gamma(3.0, 0.1, (len(cohort.sample), BINS + FORWARD, UNITS)).astype(np.float32)


def benchmark(rates: np.ndarray, part: str, units: slice = slice(None)) -> float:
    """R2 of the mean rates of a part's trials [trial, bin, unit] (NaN: not scored), as the benchmark evaluates it."""
    known, true, predicted = targets(), [], []
    for psth, trials in zip(np.float64(known["psth"]), known[f"{part}_cond_idx"], strict=True):
        moved = []
        for trial in trials:
            if not np.isnan(rates[trial]).all():
                path = np.full((BINS, UNITS), np.nan)
                for at in range(BINS):
                    if 0 <= at + known[f"{part}_jitter"][trial] < BINS:
                        path[at + known[f"{part}_jitter"][trial]] = rates[trial, at]
                moved.append(path)
        if moved:
            inside = ~np.isnan(psth[:, 0])
            true.append(psth[inside][:, units])
            predicted.append(np.mean(moved, axis=0)[inside][:, units])
    return float(r2_score(np.vstack(true), np.vstack(predicted)))


def test_it_is_the_benchmarks_number(cohort: Cohort) -> None:
    rates = made_up(cohort)
    table = cohort.score(rates, resamples=0)
    samples = cohort.split.samples.loc[cohort.sample]
    for part, split, first in (("eval", "test", TRAIN), ("train", "validation", 0)):
        own = np.full((max(TRAIN, EVAL), BINS, UNITS), np.nan)
        rows = (samples["split"] == split).to_numpy()
        own[samples["trial"].to_numpy()[rows] - first] = rates[rows, :BINS]
        for units, which in (("all", slice(None)), ("heldin", slice(HELDIN)), ("heldout", slice(HELDIN, None))):
            found = value(table, "nlb_psth_r2", units, split)
            assert found == pytest.approx(benchmark(own, part, which), abs=1e-10), (split, units)
    counted = table[(table["metric"] == "nlb_psth_r2") & (table["units"] == "all")]["n"]
    assert set(counted) == {UNITS}  # the silent one, too
    assert not table.duplicated(KEYS).any()
    of_ours = table[(table["metric"] == "psth_r2") & (table["units"] == "heldin") & (table["split"] == "test")]
    assert of_ours["n"].tolist() == [HELDIN - 1]


def test_movement_is_decoded_as_in_the_benchmark(tmp_path: Path) -> None:
    """By a ridge regression on all train trials, of which some are this package's validation part."""
    rng = np.random.default_rng(3)
    rates = rng.gamma(3.0, 0.1, (TRAIN + EVAL, BINS + FORWARD, UNITS)).astype(np.float32)
    shown = rates[:, :BINS].astype(np.float64)
    movement = shown @ rng.standard_normal((UNITS, 2)) + 0.3 * rng.standard_normal((TRAIN + EVAL, BINS, 2))
    movement[::7, -3:] = np.nan
    unseen = np.full((TRAIN + EVAL, BINS), False)
    unseen[[0, 1, 2, TRAIN, TRAIN + 1, TRAIN + 2], :2] = True  # nothing was recorded, whatever the hand did
    movement[unseen] = np.nan
    behavior = {"train_behavior": movement[:TRAIN], "eval_behavior": movement[TRAIN:]}
    cohort = Cohort(tmp_path, read(tmp_path / "files", behavior, validation=0.2), WINDOWS, SPLITS)

    def rows(trials: slice) -> tuple[np.ndarray, np.ndarray]:
        known = ~np.isnan(movement[trials][:, :, 0]).ravel()
        return shown[trials].reshape(-1, UNITS)[known], movement[trials].reshape(-1, 2)[known]

    expected = GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}).fit(*rows(slice(TRAIN)))
    score = expected.score(*rows(slice(TRAIN, None)))
    found = decoded(cohort, rates, Target(signal="behavior", learn_validation=True))
    assert found == pytest.approx(score, abs=1e-10)
    assert abs(decoded(cohort, rates, Target(signal="behavior")) - score) > 1e-6
    with pytest.raises(InputError, match="learn_validation"):
        Target(timing="behavior_4", learn_validation=True)


def test_speeds_are_those_between_set_and_go(tmp_path: Path) -> None:
    """Held-in units are known before, too, held-out ones are not: the benchmark goes by the latter."""
    rng = np.random.default_rng(4)
    rates = rng.gamma(3.0, 0.1, (TRAIN + EVAL, BINS + FORWARD, UNITS)).astype(np.float32)
    values = np.concatenate([rng.integers(2, size=(TRAIN + EVAL, 2)), rng.random((TRAIN + EVAL, 3))], axis=1)
    values[:, 2] = 1.0
    first = rng.integers(0, BINS - 4, EVAL)
    spikes = rng.poisson(0.4, (EVAL, BINS, HELDOUT)).astype(float)
    spikes[np.arange(BINS) < first[:, None]] = np.nan
    files = {"train_behavior": values[:TRAIN], "eval_behavior": values[TRAIN:], "eval_spikes_heldout": spikes}
    cohort = Cohort(tmp_path, read(tmp_path / "files", files), WINDOWS, SPLITS)
    shown = rates[TRAIN:, :BINS].astype(np.float64)
    speed = [np.linalg.norm(np.diff(own[at:], axis=0), axis=1).mean() for own, at in zip(shown, first, strict=True)]
    kinds = [tuple(row) for row in values[TRAIN:, :3]]
    expected = []
    for kind in sorted(set(kinds)):
        mine = np.array([each == kind for each in kinds])
        expected.append(pearsonr(np.array(speed)[mine], values[TRAIN:, 4][mine])[0])
    within = ("behavior_0", "behavior_1", "behavior_2")
    found = decoded(cohort, rates, Target(timing="behavior_4", within=within))
    assert found == pytest.approx(np.mean(expected), abs=1e-10)


def test_windows_that_begin_elsewhere_are_moved_and_other_bins_have_no_score(cohort: Cohort, tmp_path: Path) -> None:
    """Four bins before the trial: the same rates in the same bins have the same score."""
    rates = made_up(cohort)
    wider = replace(WINDOWS, before=0.02)
    other = Cohort(tmp_path / "wider", cohort.made, wider, SPLITS)
    early = np.concatenate([np.full((len(other.sample), 4, UNITS), 9.0, np.float32), rates], axis=1)
    expected = value(cohort.score(rates, resamples=0), "nlb_psth_r2", "all")
    # What is before the trial belongs to no bin of the responses that is known.
    found = other.score(early, resamples=0)
    assert value(found, "nlb_psth_r2", "all") == pytest.approx(expected, abs=1e-10)
    coarse = Cohort(tmp_path / "coarse", cohort.made, replace(WINDOWS, bin_size=10.0), SPLITS)
    table = coarse.score(rates[:, ::2], resamples=0)
    assert "nlb_psth_r2" not in set(table["metric"]) and "psth_r2" in set(table["metric"])


def test_trials_that_are_no_samples_leave_those_after_them_their_responses(cohort: Cohort, tmp_path: Path) -> None:
    rates = made_up(cohort)
    fewer = Cohort(tmp_path, cohort.made, WINDOWS, replace(SPLITS, train_share=0.5))
    assert len(fewer.split.samples) < len(cohort.split.samples)
    whole, left = (value(each.score(rates, resamples=0), "nlb_psth_r2", "all") for each in (cohort, fewer))
    assert left == whole


def test_responses_that_go_on_after_the_windows_are_scored_where_a_window_reaches() -> None:
    """Windows of three bins, at the start of the response and two bins later; of its last bin nothing is predicted."""
    psth = np.random.default_rng(0).gamma(3.0, 0.1, (1, 6, 2))
    shift = np.array([0, 2])
    samples = pd.DataFrame({"trial": [0, 1], "condition": "0", "bins": 3, "shift": shift})
    rates = np.stack([psth[0, by : by + 3] for by in shift])
    part = Part(samples, rates, np.ones((2, 3, 2)), np.ones((2, 3, 2), dtype=bool), None, {})
    responses = Responses(np.array(["0"]), psth, samples, given=True)
    split = SimpleNamespace(forward_bins=0, bin_size=5.0)
    found = [row for row in response_rows(part, split, responses, {}) if row["metric"] == "nlb_psth_r2"]
    assert [row["value"] for row in found] == [pytest.approx(1.0)]


def test_no_fit_sees_the_responses(cohort: Cohort) -> None:
    """They are in what evaluations read alone: not in the trials, their conditions, or the trains."""
    trains = Trains.open(cohort.trains)
    assert set(trains.trials["condition"]) == {"all"}
    known = {*trains.trials, *trains.units, *trains.signals} - {"condition"}
    assert not [name for name in known if "psth" in name or "cond" in name or "jitter" in name]
    assert (cohort.recording / "truth.zarr" / "psth").is_dir()
    assert not [path for path in cohort.trains.rglob("*") if "psth" in path.name]


def test_responses_follow_the_selection_of_units(tmp_path: Path) -> None:
    made = read(tmp_path / "a", max_units=4)
    kept = [int(name.split("-")[1]) + HELDIN * name.startswith("heldout") for name in made.units["unit_id"]]
    assert made.truth is not None and len(kept) == 4
    np.testing.assert_array_equal(made.truth.arrays["psth"], np.float64(targets()["psth"])[:, :, kept])


def test_files_without_conditions_are_read_as_before(tmp_path: Path) -> None:
    none = {"train_cond_idx": None, "eval_cond_idx": None}
    assert read(tmp_path / "old", none | {"psth": np.zeros((EVAL * BINS, UNITS))}).truth is None
    assert read(tmp_path / "without", {"psth": None}).truth is None
    unjittered = read(tmp_path / "b", {"train_jitter": None, "eval_jitter": None, "train_cond_idx": None}).truth
    assert unjittered is not None and not unjittered.arrays["psth_jitter"].any()
    assert (unjittered.arrays["psth_condition"][:TRAIN] == -1).all()


def rows(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(own, np.int32) for own in (*lists, *[[]] * (CONDITIONS - len(lists)))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psth": np.zeros((CONDITIONS, BINS, UNITS - 1))}, r"psth: found shape \(6, 16, 7\)"),
        ({"psth": np.full((CONDITIONS, BINS, UNITS), np.inf)}, "psth: found shape"),
        ({"psth": np.where(np.arange(UNITS) == 1, np.nan, np.zeros((CONDITIONS, BINS, UNITS)))}, "96 NaN"),
        ({"eval_cond_idx": rows([0], [1])[:-1]}, "eval_cond_idx: found 5 conditions; accepted: 6"),
        ({"eval_cond_idx": rows([0, EVAL])}, "no trial; accepted: trials of this part, 0 to 24"),
        ({"eval_cond_idx": rows([0, 2], [2])}, "eval_cond_idx: found a trial twice"),
        ({"eval_jitter": np.zeros(EVAL - 1)}, "eval_jitter: found shape"),
        ({"eval_jitter": np.full(EVAL, 0.5)}, "whole bins of 25 trials"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "files", change)
