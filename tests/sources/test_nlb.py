"""Datasets of the Neural Latents Benchmark: read, binned and split again they are what they were."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.sources import read_source
from pipeline_lib.trains import export
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains

TRAIN, EVAL, BINS, FORWARD, HELDIN, HELDOUT = 30, 8, 14, 4, 6, 3
WINDOWS = WindowSettings(bin_size=5.0, after=(BINS + FORWARD) * 0.005)
SPLITS = SplitSettings(scheme="column", heldout_units="heldout", forward=FORWARD * 0.005)


def arrays() -> dict[str, np.ndarray]:
    """What a benchmark's files hold: everything of the train trials, held-in units of the eval trials."""
    rng = np.random.default_rng(0)
    made = {}
    for group, units in (("heldin", HELDIN), ("heldout", HELDOUT)):
        for time, bins in (("", BINS), ("_forward", FORWARD)):
            made[f"train_spikes_{group}{time}"] = rng.poisson(0.4, (TRAIN, bins, units)).astype(float)
    made["eval_spikes_heldin"] = rng.poisson(0.4, (EVAL, BINS, HELDIN)).astype(float)
    made["train_behavior"] = rng.standard_normal((TRAIN, BINS, 2))
    made["train_spikes_heldin"][3, :2] = np.nan
    made["train_spikes_heldout"][3, :2] = np.nan
    made["train_spikes_heldin"][5, 6:, 1] = np.nan  # a unit that is lost in the middle of a trial
    return made


def write(directory: Path, content: dict[str, np.ndarray], name: str = "input.h5", group: str = "") -> Path:
    directory.mkdir(exist_ok=True)
    with h5py.File(directory / name, "w") as file:
        for key, array in content.items():
            file[group + key] = array
    return directory


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write(tmp_path / "maze", arrays())


def test_counts_and_what_is_known_come_back(dataset: Path) -> None:
    made, recording = arrays(), read_source("nlb", "maze", dataset)
    trains = Trains.from_recording(recording)
    assert trains.units["heldout"].tolist() == [False] * HELDIN + [True] * HELDOUT
    assert len(trains.trials) == TRAIN + EVAL
    start = np.round(trains.trials["start"].to_numpy() * 1e5).astype(np.int64)
    counts = bin_windows(trains, start, BINS + FORWARD, 500)
    known = observed_windows(trains, start, BINS + FORWARD, 500)
    whole = np.full(counts.shape, np.nan)
    for part, rows in (("train", slice(TRAIN)), ("eval", slice(TRAIN, None))):
        for group, units in (("heldin", slice(HELDIN)), ("heldout", slice(HELDIN, None))):
            for time, bins in (("", slice(BINS)), ("_forward", slice(BINS, None))):
                if f"{part}_spikes_{group}{time}" in made:
                    whole[rows, bins, units] = made[f"{part}_spikes_{group}{time}"]
    np.testing.assert_array_equal(known, ~np.isnan(whole))
    np.testing.assert_array_equal(counts[known], whole[known])
    assert not counts[~known].any()


def test_bins_and_pauses_are_as_long_as_the_options_say(dataset: Path) -> None:
    recording = read_source("nlb", "maze", dataset, {"bin_size": 20, "pause": 0.5})
    length = (BINS + FORWARD) * 0.02
    np.testing.assert_allclose(recording.trials["start"], np.arange(TRAIN + EVAL) * (length + 0.5))
    np.testing.assert_allclose(recording.trials["stop"], recording.trials["start"] + length)
    start = np.round(recording.trials["start"].to_numpy()[:TRAIN] * 1e5).astype(np.int64)
    counts = bin_windows(Trains.from_recording(recording), start, BINS, 2000)[:, :, :HELDIN]
    np.testing.assert_array_equal(counts, np.nan_to_num(arrays()["train_spikes_heldin"]))


def test_a_unit_of_which_nothing_is_known_was_never_observed(tmp_path: Path) -> None:
    made = arrays()
    for name in ("train_spikes_heldin", "train_spikes_heldin_forward", "eval_spikes_heldin"):
        made[name][:, :, 2] = np.nan
    trains = Trains.from_recording(read_source("nlb", "maze", write(tmp_path / "maze", made)))
    known = observed_windows(trains, np.array([0]), BINS, 500)
    assert known.any(axis=(0, 1)).tolist() == [unit != 2 for unit in range(HELDIN + HELDOUT)]


def test_the_benchmarks_split_is_kept(dataset: Path) -> None:
    trains = Trains.from_recording(read_source("nlb", "maze", dataset, {"validation": 0.2}))
    split = make_split([trains], WINDOWS, SPLITS, "c")
    parts = split.samples["split"].to_numpy()
    assert (parts[TRAIN:] == "test").all() and (parts[:TRAIN] == "validation").sum() == 6
    assert set(parts[:TRAIN]) == {"train", "validation"}
    assert (np.diff(np.flatnonzero(parts == "validation")) == TRAIN // 6).all()  # dealt evenly, not the first ones
    few = read_source("nlb", "maze", dataset, {"validation": 3.7 / TRAIN}).trials["split"]
    assert (few == "validation").sum() == 4  # to the nearest
    np.testing.assert_array_equal(split.heldout["maze"], HELDIN + np.arange(HELDOUT))
    assert split.forward_bins == FORWARD


@pytest.mark.parametrize("known", [False, True])
def test_movement_is_a_signal_at_the_middle_of_bins(dataset: Path, known: bool) -> None:
    from pipeline_lib.evaluation.decoding import signal_in_bins

    moved = np.random.default_rng(3).standard_normal((EVAL, BINS, 2)) if known else np.full((EVAL, BINS, 2), np.nan)
    if known:
        write(dataset, {"eval_behavior": moved}, "target.h5")
    recording = read_source("nlb", "maze", dataset)
    signal = recording.signals["behavior"]
    start = np.round(recording.trials["start"].to_numpy() * 1e5).astype(np.int64)
    columns = signal[["dimension_0", "dimension_1"]].to_numpy()
    found = signal_in_bins(signal["time"].to_numpy(), columns, start, BINS + FORWARD, 500)
    np.testing.assert_allclose(found[:TRAIN, :BINS], arrays()["train_behavior"], atol=1e-9)
    np.testing.assert_allclose(found[TRAIN:, :BINS], moved, atol=1e-9)
    assert np.isnan(found[:, BINS:]).all()


def test_values_and_groups_of_trials_are_columns_of_theirs(tmp_path: Path) -> None:
    """The benchmark's interval task has a table of times, and its area 2 a decoder for each kind of trial."""
    made, rng = arrays(), np.random.default_rng(2)
    made["train_behavior"], made["eval_behavior"] = rng.random((TRAIN, 5)), rng.random((EVAL, 5))
    made["eval_behavior"][2] = np.nan
    made["train_decode_mask"] = rng.permutation(np.repeat(np.eye(2, dtype=bool), TRAIN // 2, axis=0))
    made["eval_decode_mask"] = np.eye(2, dtype=bool)[rng.integers(2, size=EVAL)]
    made["train_decode_mask"][4] = False
    recording = read_source("nlb", "rsg", write(tmp_path / "rsg", made))
    assert not recording.signals
    values = recording.trials[[f"behavior_{number}" for number in range(5)]].to_numpy()
    np.testing.assert_array_equal(values, np.concatenate([made["train_behavior"], made["eval_behavior"]]))
    member = np.concatenate([made["train_decode_mask"], made["eval_decode_mask"]])
    expected = ["" if row == 4 else str(int(own[1])) for row, own in enumerate(member)]
    assert recording.trials["decoder"].tolist() == expected


def test_targets_in_another_file_and_group_are_taken_along(dataset: Path) -> None:
    rng = np.random.default_rng(1)
    shapes = {"heldout": (BINS, HELDOUT), "heldin_forward": (FORWARD, HELDIN), "heldout_forward": (FORWARD, HELDOUT)}
    targets = {f"eval_spikes_{name}": rng.poisson(0.4, (EVAL, *shape)) for name, shape in shapes.items()}
    write(dataset, targets, "target.h5", "mc_maze/")
    trains = Trains.from_recording(read_source("nlb", "maze", dataset))
    start = np.round(trains.trials["start"].to_numpy()[TRAIN:] * 1e5).astype(np.int64)
    found = bin_windows(trains, start, BINS + FORWARD, 500)
    np.testing.assert_array_equal(found[:, :BINS, HELDIN:], targets["eval_spikes_heldout"])
    assert observed_windows(trains, start, BINS + FORWARD, 500).all()


def test_what_is_exported_can_be_read_again(dataset: Path, tmp_path: Path) -> None:
    trains = Trains.from_recording(read_source("nlb", "maze", dataset, {"validation": 0.0}))
    trains.trials.loc[0, "split"] = "validation"  # the split wants all three parts
    split = make_split([trains], WINDOWS, SPLITS, "c")
    (tmp_path / "again").mkdir()
    export.to_nlb(trains, split, tmp_path / "again" / "in.h5", tmp_path / "again" / "target.h5")
    second = Trains.from_recording(read_source("nlb", "again", tmp_path / "again"))
    first_start, second_start = (
        np.round(each.trials["start"].to_numpy() * 1e5).astype(np.int64) for each in (trains, second)
    )
    counts = bin_windows(trains, first_start[1:], BINS + FORWARD, 500)
    np.testing.assert_array_equal(bin_windows(second, second_start, BINS + FORWARD, 500), counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_spikes_heldin": None}, "train_spikes_heldin: found no such dataset"),
        ({"train_spikes_heldout": np.zeros((TRAIN - 1, BINS, HELDOUT))}, "train_spikes_heldout.*shape"),
        ({"eval_spikes_heldin": np.zeros((EVAL, BINS + 1, HELDIN))}, "eval_spikes_heldin.*shape"),
        ({"eval_spikes_heldin": np.full((EVAL, BINS, HELDIN), 0.5)}, "whole counts"),
        ({"train_behavior": np.zeros((TRAIN - 1, BINS, 2))}, "train_behavior: found shape .* trials"),
        ({"train_behavior": np.zeros(TRAIN)}, "train_behavior: found shape"),
        ({"train_behavior": np.zeros((TRAIN - 1, 5))}, r"train_behavior: found shape \(29, 5\)"),
        ({"eval_decode_mask": np.zeros((EVAL, 2, 1))}, "eval_decode_mask: found shape"),
        ({"eval_decode_mask": np.ones((EVAL, 2))}, "decode_mask: found a trial in two groups"),
        ({"eval_spikes_heldin": np.full((EVAL, BINS, HELDIN), -1.0)}, "whole counts"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, change: dict, message: str) -> None:
    content = {name: array for name, array in (arrays() | change).items() if array is not None}
    with pytest.raises(InputError, match=message):
        read_source("nlb", "maze", write(tmp_path / "maze", content))


def test_a_dataset_in_two_files_and_a_broken_file_are_refused(dataset: Path) -> None:
    write(dataset, {"eval_spikes_heldin": arrays()["eval_spikes_heldin"]}, "second.h5")
    with pytest.raises(InputError, match="a second dataset"):
        read_source("nlb", "maze", dataset)
    (dataset / "second.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="second"):
        read_source("nlb", "maze", dataset)


def test_splits_by_column_need_the_columns(dataset: Path) -> None:
    from dataclasses import replace

    trains = Trains.from_recording(read_source("nlb", "maze", dataset))
    with pytest.raises(InputError, match="'region'"):
        make_split([trains], WINDOWS, replace(SPLITS, heldout_units="region"), "c")
    del trains.trials["split"]
    with pytest.raises(InputError, match="no such column"):
        make_split([trains], WINDOWS, SPLITS, "c")
