"""Trains of a recording in memory: those of a store, of a recording that keeps to its contract."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.store import Trains


def test_a_recording_in_memory_is_the_same_as_one_converted(converted, recording):
    stored, direct = Trains.open(converted), Trains.from_recording(recording)
    for name in ("ticks", "unit", "observed", "unit_intervals"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(direct, name))
        assert getattr(stored, name).dtype == getattr(direct, name).dtype
    assert (stored.session, stored.n_units, stored.duration_ticks) == ("s1", 20, direct.duration_ticks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made: {"spike_units": np.full_like(made.spike_units, 20)}, r"spikes\.unit, row 0: found 20"),
        (lambda made: {"spike_times": made.spike_times[::-1].copy()}, r"spikes\.time, row 1"),
        (lambda made: {"duration": 1.0}, r"spikes\.time, last row"),
        (lambda made: {"trials": made.trials.drop(columns="condition")}, "trials.*condition"),
    ],
)
def test_a_recording_made_by_hand_is_looked_at(recording, change, message):
    """A spike of no unit would be counted in the next bin, as the first one's."""
    with pytest.raises(InputError, match=message):
        Trains.from_recording(replace(recording, **change(recording)))


def test_a_unit_that_was_never_there_is_observed_nowhere(recording):
    recording.unit_intervals = pd.DataFrame({"unit": [3], "start": [20.0], "stop": [20.0]})
    seen = observed_windows(Trains.from_recording(recording), np.array([0, 1_900_000]), 300, 500)
    assert not seen[:, :, 3].any() and np.delete(seen, 3, axis=2).all()


def test_a_spike_at_the_very_end_lies_within_the_trains(recording):
    recording.spike_times[-1] = 100.0
    assert Trains.from_recording(recording).duration_ticks == 10_000_001
