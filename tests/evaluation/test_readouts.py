"""Decoding and few-shot rows of the table, from files to file: a session whose behaviour follows from its rates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.parts import Fitted
from pipeline_lib.evaluation.readouts import few_shot_rows
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.recording import Recording
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains
from tests.evaluation.made_up_fit import name_fit
from tests.small_cohort import SPLITS, TRIALS, UNITS, WINDOWS, recording, store, write_cohort

DECODING = {
    "hand": Target(signal="hand"),
    "late": Target(signal="hand", lag=0.3),
    "choice": Target(choice="condition"),
    "pace": Target(timing="pace", within=("condition",)),
    "absent": Target(signal="no_such_signal"),
    "unknown": Target(choice="no_such_column"),
}


class Scored:
    """The session on disk, and rates of every sample: a wave of the trial's condition, which `hand` follows."""

    def __init__(self, directory: Path) -> None:
        made = recording()
        self.condition = made.trials["condition"].str[1:].astype(int).to_numpy()
        made.trials["pace"] = np.random.default_rng(0).random(TRIALS)
        # Two columns that make the same groups, and whose values joined by any bar would not.
        made.trials["first"] = made.trials["condition"].map({"c0": "a|b", "c1": "a", "c2": "d"})
        made.trials["second"] = made.trials["condition"].map({"c0": "c", "c1": "b|c", "c2": "d"})
        time = np.arange(0, TRIALS * 1.5, 0.005)
        phase = 2 * np.pi * (time % 1.5) + 2.1 * self.condition[np.minimum((time / 1.5).astype(int), TRIALS - 1)]
        made.signals = {"hand": pd.DataFrame({"time": time, "x": np.sin(phase), "y": 3 + np.cos(phase)})}
        self.directory = directory
        (self.trains,), self.split_path = write_cohort(directory, WINDOWS, SPLITS, [made])
        self.recording = directory / "recordings" / "small0"
        self.split = Split.read(self.split_path)
        self.heldout = self.split.heldout["small0"]

    def rates(self, samples: pd.DataFrame) -> np.ndarray:
        """Affine in `hand`, plus little noise, in the units' own way: [S, T, N]."""
        rng = np.random.default_rng(1)
        phase = 2 * np.pi * (np.arange(50) + 0.5) / 50 + 2.1 * self.condition[samples["trial"]][:, None]
        hand = np.stack([np.sin(phase), np.cos(phase)], axis=2)
        rates = 0.3 + 0.1 * hand @ np.random.default_rng(2).uniform(-1, 1, (2, UNITS))
        return rates + 0.001 * rng.standard_normal(rates.shape)

    def write(self, name: str, parts: list[str], **more: np.ndarray) -> Path:
        samples = self.split.samples[self.split.samples["split"].isin(parts)]
        group = zarr.open_group(str(self.directory / name / "predictions.zarr"), mode="w", attributes={"sees": "all"})
        session = group.create_group("small0")
        session.create_array("rates", data=self.rates(samples).astype(np.float32))
        session.create_array("sample", data=samples.index.to_numpy(dtype=np.int64))
        for key, values in more.items():
            session.create_array(key, data=values)
        return name_fit(self.directory / name)

    def table(self, fit: Path, train: Path | None, resamples: int = 50, **more: object) -> pd.DataFrame:
        out = self.directory / "scores.parquet"
        evaluate(fit, Scoring([self.trains], self.split_path, [self.recording], resamples, **more), out, train or ())
        return pd.read_parquet(out)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("scored"))


@pytest.fixture(scope="module")
def table(scored: Scored) -> pd.DataFrame:
    fit, train = scored.write("fit", ["validation", "test"]), scored.write("train", ["train"])
    found = scored.table(fit, train, decoding=DECODING)
    return found[found["metric"].str.startswith("decoding_")].set_index("metric")


def test_behaviour_that_follows_from_rates_is_decoded(table: pd.DataFrame, scored: Scored) -> None:
    hand = table.loc["decoding_hand_r2"]
    assert hand["value"] > 0.98 and hand["ci_low"] <= hand["value"] <= hand["ci_high"]
    assert (hand["n"], hand["units"], hand["split"], hand["aggregation"]) == (2, "all", "test", "mean over dimensions")
    late = table.loc["decoding_late_r2", "value"]
    assert 0.2 < late < hand["value"]  # a rotated wave, and nothing to rotate it by at the trials' ends
    choice = table.loc["decoding_choice_balanced_accuracy"]
    assert choice["value"] == 1 and choice["null"] == "chance 1/3"
    assert choice["n"] == len(scored.split.part("small0", "test"))
    assert abs(table.loc["decoding_pace_speed_correlation", "value"]) <= 1


def test_each_group_of_trials_has_a_readout_of_its_own(scored: Scored) -> None:
    """As in the benchmark's area 2, where passive movement is decoded apart from active: the mean of their R2."""
    fit, train = scored.write("fit", ["validation", "test"]), scored.write("train", ["train"])
    targets = {"hand": Target(signal="hand", lag=0.3, within=("condition",))}
    (row,) = scored.table(fit, train, decoding=targets).query("metric == 'decoding_hand_r2'").to_dict("records")
    assert row["aggregation"] == "mean over dimensions and groups" and row["ci_low"] <= row["value"] <= row["ci_high"]
    time = (np.arange(45) + 0.5) / 50 + 0.3  # without the bins to forecast

    def of(fit: Path, part: str, group: int) -> tuple[np.ndarray, np.ndarray]:
        predicted = zarr.open_group(str(fit / "predictions.zarr"))["small0"]
        samples = scored.split.samples.loc[predicted["sample"][:]]
        mine = (samples["split"] == part).to_numpy() & (scored.condition[samples["trial"]] == group)
        phase = np.tile(2 * np.pi * time + 2.1 * group, mine.sum())
        hand = np.stack([np.sin(phase), 3 + np.cos(phase)], axis=1)
        return predicted["rates"][:][mine, :45].reshape(-1, UNITS).astype(np.float64), hand

    scores = []
    for group in range(3):
        readout = GridSearchCV(Ridge(), {"alpha": np.logspace(-4, 0, 9)}).fit(*of(train, "train", group))
        scores.append(readout.score(*of(fit, "test", group)))
    assert row["value"] == pytest.approx(np.mean(scores), abs=1e-8)
    with pytest.raises(InputError, match="within"):
        Target(choice="condition", within=("pace",))


def test_what_a_session_does_not_have_is_not_a_number(table: pd.DataFrame) -> None:
    for metric in ("decoding_absent_r2", "decoding_unknown_balanced_accuracy"):
        assert np.isnan(table.loc[metric, "value"]) and table.loc[metric, "n"] == 0


def test_a_time_that_is_no_number_is_refused(scored: Scored) -> None:
    fit, train = scored.write("fit", ["validation", "test"]), scored.write("train", ["train"])
    with pytest.raises(InputError, match=r"timing.*'c[012]'.*condition"):
        scored.table(fit, train, 0, decoding={"pace": Target(timing="condition")})


@pytest.mark.parametrize("of", [{"choice": "condition"}, {"timing": "pace"}])
def test_a_lag_of_what_is_one_value_a_trial_is_refused(of: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"lag: found 0\.3; accepted: nothing, of a choice or a timing"):
        Target(lag=0.3, **of)


def test_readouts_see_nothing_of_the_test_part(scored: Scored) -> None:
    """With rates of the training part that say nothing, nothing is decoded, whatever the test rates say."""
    fit, train = scored.write("fit", ["validation", "test"]), scored.write("blank", ["train"])
    store = zarr.open_group(str(train / "predictions.zarr"), mode="a")
    store["small0/rates"][:] = np.random.default_rng(0).random(store["small0/rates"].shape).astype(np.float32)
    found = scored.table(fit, train, 0, decoding=DECODING).set_index("metric")["value"]
    assert found["decoding_hand_r2"] < 0.1 and found["decoding_choice_balanced_accuracy"] < 0.8


def test_decoding_asks_for_the_training_part(scored: Scored) -> None:
    fit = scored.write("fit", ["validation", "test"])
    with pytest.raises(InputError, match="training part"):
        scored.table(fit, None, decoding=DECODING)
    with pytest.raises(InputError, match="one of signal, choice, timing"):
        Target(signal="hand", choice="condition")


def test_latents_are_decoded_too(scored: Scored) -> None:
    latents = {}
    for name, parts in (("fit_latent", ["validation", "test"]), ("train_latent", ["train"])):
        samples = scored.split.samples[scored.split.samples["split"].isin(parts)]
        latents[name] = scored.write(name, parts, latents=scored.rates(samples)[:, :, :2].astype(np.float32))
    found = scored.table(latents["fit_latent"], latents["train_latent"], 0, decoding={"hand": DECODING["hand"]})
    found = found[found["metric"] == "decoding_hand_r2"].set_index("units")["value"]
    assert found["latents"] > 0.95 and set(found.index) == {"all", "latents"}


def test_few_windows_teach_a_readout_of_heldout_units(scored: Scored) -> None:
    rows = scored.table(scored.write("fit", ["validation", "test"]), None, 0, few_shot=[1, 8, 99])
    few = rows[rows["metric"].str.startswith("few_shot")]
    assert set(few["metric"].str.extract(r"few_shot_(\d+)_")[0]) == {"1", "8"}  # there are no 99 validation windows
    assert (few["units"] == "heldout").all() and (few["split"] == "test").all()
    pooled = few[(few["aggregation"] == "pooled") & (few["null"] == "train mean")].set_index("metric")["value"]
    assert pooled["few_shot_8_bits_per_spike"] > max(pooled["few_shot_1_bits_per_spike"], 0)


def test_masked_rates_are_scored_where_there_are_any(scored: Scored) -> None:
    fit = scored.write("masked", ["validation", "test"])
    store = zarr.open_group(str(fit / "predictions.zarr"), mode="a")
    rates = store["small0/rates"][:]
    rates[:, :, scored.heldout] = np.nan
    extras = store.create_group("small0/extras")
    extras.create_array("rates_leave_one_out", data=rates)
    extras.create_array("other", data=rates[0])
    found = scored.table(fit, None, 0)
    keys = ["split", "null", "aggregation"]
    plain, masked = (
        found[(found["metric"] == metric) & (found["units"] == "heldin")].set_index(keys)["value"]
        for metric in ("bits_per_spike", "leave_one_out_bits_per_spike")
    )
    assert len(masked) == 8
    pd.testing.assert_series_equal(plain, masked)
    rates[0, 0, np.setdiff1d(np.arange(UNITS), scored.heldout)[0]] = np.inf
    extras["rates_leave_one_out"][:] = rates
    with pytest.raises(InputError, match="inf"):  # NaN says that there is no prediction, this is a wrong one
        scored.table(fit, None, 0)
    extras.create_array("rates_short", data=rates[:, 1:])
    with pytest.raises(InputError, match="rates_short"):
        scored.table(fit, None, 0)


def test_names_with_any_letter_in_them_keep_groups_of_trials_apart(scored: Scored) -> None:
    fit, train = scored.write("fit", ["validation", "test"]), scored.write("train", ["train"])
    whole, split = (
        scored.table(fit, train, 0, decoding={"hand": Target(signal="hand", within=columns)})
        for columns in (("condition",), ("first", "second"))
    )
    first, second = (each.set_index("metric").loc["decoding_hand_r2", "value"] for each in (whole, split))
    assert first == pytest.approx(second, rel=1e-12)


def test_few_shot_reads_validation_and_test_only(scored: Scored, tmp_path: Path) -> None:
    """Held-out spikes of the training part change nothing but the null that is named after it."""
    fit = scored.write("fit", ["validation", "test"])
    before = scored.table(fit, None, 0, few_shot=[6])
    made = recording()
    train = scored.split.part("small0", "train")
    tick = np.round(made.spike_times * 1e5)
    inside = np.zeros(len(tick), bool)
    for start in train["start_tick"]:
        inside |= (tick >= start) & (tick < start + 100_000)
    keep = ~(inside & np.isin(made.spike_units, scored.heldout))
    assert keep.sum() < len(keep) - 500
    made.spike_times, made.spike_units = made.spike_times[keep], made.spike_units[keep]
    changed = write_cohort(tmp_path, WINDOWS, replace(SPLITS), [made])[0][0]
    counts = [
        bin_windows(Trains.open(each), train["start_tick"].to_numpy(), 50, 2000) for each in (scored.trains, changed)
    ]
    assert counts[0].sum() > counts[1].sum()
    out = tmp_path / "scores.parquet"
    evaluate(fit, Scoring([changed], scored.split_path, [scored.recording], 0, few_shot=[6]), out)
    after = pd.read_parquet(out)
    rows = before["metric"].str.startswith("few_shot") & (before["null"] == "evaluated mean")
    assert rows.any()
    pd.testing.assert_frame_equal(before[rows], after[rows])


def test_where_latents_have_their_origin_does_not_matter_to_few_windows_of_any_length(tmp_path: Path) -> None:
    """Bins beyond the end of a window would pull the mean and the spread of the inputs towards 0."""
    made = recording(trials=40)
    made.trials["stop"] -= np.random.default_rng(0).integers(0, 30, len(made.trials)) * 0.02
    (directory,), split_path = write_cohort(
        tmp_path, replace(WINDOWS, after=None), replace(SPLITS, forward=0.0), [made]
    )
    trains, split = Trains.open(directory), Split.read(split_path)
    samples = split.samples[split.samples["split"] != "train"]
    inside = np.arange(samples["bins"].max()) < samples["bins"].to_numpy()[:, None]
    rng = np.random.default_rng(1)
    rates = np.where(inside[:, :, None], rng.random((*inside.shape, UNITS)), np.nan).astype(np.float32)
    latents = np.where(inside[:, :, None], rng.standard_normal((*inside.shape, 2)), np.nan)
    assert not inside.all()
    values = [
        [row["value"] for row in few_shot_rows([3], trains, split, fitted, {"evaluated mean": None}, 0)]
        for fitted in (Fitted(rates, samples.index.to_numpy(), latents + origin, None, {}) for origin in (0, 10))
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_what_latents_are_where_nothing_was_recorded_does_not_matter_to_few_windows(tmp_path: Path) -> None:
    made = recording(trials=40)
    starts = np.arange(0, 40, 2) * 1.5
    made.observed = np.stack([np.r_[0.0, starts + 1.0], np.r_[starts + 0.5, made.duration]], axis=1)
    (directory,), split_path = write_cohort(tmp_path, WINDOWS, replace(SPLITS, forward=0.0), [made])
    trains, split = Trains.open(directory), Split.read(split_path)
    samples = split.samples[split.samples["split"] != "train"]
    nothing = (samples["trial"].to_numpy() % 2 == 0)[:, None] & (np.arange(50) >= 25)
    rng = np.random.default_rng(1)
    rates, latents = rng.random((*nothing.shape, UNITS)), rng.standard_normal((*nothing.shape, 2))
    values = [
        [row["value"] for row in few_shot_rows([3], trains, split, fitted, {"evaluated mean": None}, 0)]
        for fitted in (
            Fitted(rates, samples.index.to_numpy(), np.where(nothing[..., None], filler, latents), None, {})
            for filler in (0, 10)
        )
    ]
    assert len(values[0]) == 3 and values[0] == values[1]


def test_few_windows_are_taken_from_those_in_which_heldout_units_were_observed(scored: Scored, tmp_path: Path) -> None:
    made = recording()
    starts = np.sort(scored.split.part("small0", "validation")["start_tick"].to_numpy()) / 1e5
    gone = np.stack([starts[2:], starts[2:] + 1.0], axis=1).ravel()
    spans = np.concatenate([[0.0], gone, [made.duration]]).reshape(-1, 2)
    made.unit_intervals = pd.concat(
        [pd.DataFrame({"unit": unit, "start": spans[:, 0], "stop": spans[:, 1]}) for unit in scored.heldout],
        ignore_index=True,
    )
    (directory,), _ = write_cohort(tmp_path, WINDOWS, SPLITS, [made])
    fit, out = scored.write("fit", ["validation", "test"]), tmp_path / "scores.parquet"
    evaluate(fit, Scoring([directory], scored.split_path, [scored.recording], 0, few_shot=[1, 2, 3]), out)
    few = pd.read_parquet(out).query("metric.str.startswith('few_shot')")
    assert set(few["metric"].str.extract(r"few_shot_(\d+)_")[0]) == {"1", "2"} and few["value"].notna().all()


def test_what_models_say_of_bins_without_any_recording_is_not_decoded(scored: Scored, tmp_path: Path) -> None:
    made = Recording.read(scored.recording)
    starts = np.arange(0, TRIALS, 2) * 1.5
    made.observed = np.stack([np.r_[0.0, starts + 1.0], np.r_[starts + 0.5, made.duration]], axis=1)
    trains, out = store(tmp_path, made), tmp_path / "scores.parquet"
    values = []
    for shift in (0.0, 5.0):
        folders = []
        for name, parts in (("gaps", ["validation", "test"]), ("gaps_train", ["train"])):
            folders.append(scored.write(name, parts))
            group = zarr.open_group(str(folders[-1] / "predictions.zarr"), mode="a")["small0"]
            trial = scored.split.samples["trial"].loc[group["sample"][:]].to_numpy()
            group["rates"][:] = (
                group["rates"][:] + shift * ((trial % 2 == 0)[:, None] & (np.arange(50) >= 25))[..., None]
            )
        fit, train = folders
        target = {"hand": DECODING["hand"]}
        evaluate(fit, Scoring([trains], scored.split_path, [scored.recording], 20, target), out, train)
        values.append(pd.read_parquet(out).set_index("metric").loc["decoding_hand_r2", ["value", "ci_low", "ci_high"]])
    assert values[0]["value"] > 0.9 and values[0].tolist() == values[1].tolist()
