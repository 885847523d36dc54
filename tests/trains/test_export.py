"""The same spikes in other tools' hands."""

from datetime import UTC, datetime

import h5py
import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains import export
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import make_split


def test_spike_times_of_each_unit(trains, recording):
    times = export.spike_times(trains)
    for unit in range(20):
        own = recording.spike_times[recording.spike_units == unit]
        np.testing.assert_allclose(times[unit], own, atol=0.51e-5)


def test_a_silent_unit_has_no_spike_times_and_keeps_its_place(store):
    times = export.spike_times(store([[], [0.5, 0.25], []], 1.0))
    assert [each.tolist() for each in times] == [[], [0.25, 0.5], []]


@pytest.mark.slow  # pynapple compiles its functions at the first call
def test_pynapple_counts_the_same(trains):
    pynapple = pytest.importorskip("pynapple")
    group = export.to_pynapple(trains)
    assert len(group) == 20 and group["population"].tolist() == trains.units["population"].tolist()
    counts = group.count(0.02, pynapple.IntervalSet(0, 80))
    np.testing.assert_array_equal(counts.values[:3999], bin_windows(trains, np.array([0]), 3999, 2000)[0])
    np.testing.assert_allclose(group.time_support.values, [[0, 80], [85, 100]])


def test_nwb_units_come_back(trains, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    start = datetime(2020, 1, 1, tzinfo=UTC)
    file = pynwb.NWBFile(session_description="d", identifier="i", session_start_time=start)
    trains.tables["units"]["snr"] = [np.nan] + [2.0] * 19  # not known of each
    trains.unit_intervals[-1, 2] = 8_200_000  # on into the pause of the session
    export.to_nwb(trains, file)
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "w") as out:
        out.write(file)
    with pynwb.NWBHDF5IO(tmp_path / "s.nwb", "r") as back:
        units = back.read().units
        for unit, times in enumerate(export.spike_times(trains)):
            np.testing.assert_array_equal(units["spike_times"][unit], times)
        assert units["region"][:].tolist() == trains.units["region"].tolist()
        assert units["unit_name"][0] == "s1-0" and "depth" in units.colnames and "snr" not in units.colnames
        np.testing.assert_allclose(units["obs_intervals"][0], [[0, 80], [85, 100]])
        np.testing.assert_allclose(units["obs_intervals"][3], [[0, 20], [30, 80]])


def test_neural_latents_layout(trains, tmp_path):
    settings = SplitSettings(heldout_units=5, forward=0.1)
    split = make_split([trains], WindowSettings(after=0.5), settings, "c")
    split.heldout["s1"] = split.heldout["s1"][::-1]  # in whatever order somebody names them
    export.to_nlb(trains, split, tmp_path / "in.h5", tmp_path / "target.h5")
    train, test = split.part("s1", "train"), split.part("s1", "test")
    heldout = np.sort(split.heldout["s1"])
    heldin = np.setdiff1d(np.arange(20), heldout)
    with h5py.File(tmp_path / "in.h5") as inputs, h5py.File(tmp_path / "target.h5") as targets:
        assert set(inputs) == {
            "eval_spikes_heldin",
            *(f"train_spikes_{units}{time}" for units in ("heldin", "heldout") for time in ("", "_forward")),
        }
        assert set(targets["s1"]) == {
            f"eval_spikes_{name}" for name in ("heldout", "heldin_forward", "heldout_forward")
        }
        assert inputs["train_spikes_heldin"].shape == (len(train), 80, 15)
        assert targets["s1/eval_spikes_heldout_forward"].shape == (len(test), 20, 5)
        for array, samples, time, units in (
            (inputs["train_spikes_heldin"], train, slice(80), heldin),
            (inputs["eval_spikes_heldin"], test, slice(80), heldin),
            (targets["s1/eval_spikes_heldout_forward"], test, slice(80, 100), heldout),
        ):
            starts = samples["start_tick"].to_numpy()
            expected = bin_windows(trains, starts, 100, 500).astype(float)
            expected[~observed_windows(trains, starts, 100, 500)] = np.nan
            np.testing.assert_array_equal(array[:], expected[:, time][:, :, units])


def test_windows_of_another_part_end_where_each_ends(trains, tmp_path):
    split = make_split([trains], WindowSettings(after=None), SplitSettings(heldout_units=5), "c")
    export.to_nlb(trains, split, tmp_path / "in.h5", tmp_path / "target.h5", part="validation")
    samples = split.part("s1", "validation")
    starts, bins = samples["start_tick"].to_numpy(), samples["bins"].to_numpy()
    expected = bin_windows(trains, starts, bins.max(), 500).astype(float)
    known = observed_windows(trains, starts, bins.max(), 500) & (np.arange(bins.max()) < bins[:, None])[:, :, None]
    assert len(set(bins)) > 1
    with h5py.File(tmp_path / "target.h5") as file:
        found = file["s1/eval_spikes_heldout"][:]
    np.testing.assert_array_equal(found, np.where(known, expected, np.nan)[:, :, split.heldout["s1"]])


def test_forward_bins_need_windows_of_one_length(trains, tmp_path):
    split = make_split([trains], WindowSettings(after=None), SplitSettings(forward=0.1), "c")
    with pytest.raises(InputError, match="one length"):
        export.to_nlb(trains, split, tmp_path / "in.h5", tmp_path / "target.h5")
