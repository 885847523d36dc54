"""What a unit fired while it was observed, and units that never were, against definitions worked out spike by spike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.recording import Provenance, Recording
from pipeline_lib.sources import read_source
from pipeline_lib.sources.presence import observed_rates, unit_intervals
from pipeline_lib.sources.selection import UnitSelection, select
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.store import Trains

TIMES = st.integers(0, 20)
UNITS = 3
SPANS = st.lists(st.tuples(TIMES, TIMES).map(sorted), max_size=5)


def made(spikes: list, observed: list, own: list | None) -> Recording:
    """Three units: spikes (time, unit), when the session was observed, and when units were, (unit, [start, stop])."""
    times, units = np.array(spikes, dtype=float).reshape(-1, 2).T
    table = pd.DataFrame({"unit_id": ["a", "b", "c"], "region": "x", "population": "x"})
    trials = pd.DataFrame({"start": [], "stop": [], "condition": []})
    recording = Recording(
        "s", times, units.astype(np.int32), table, trials, 20.0, np.array(observed, dtype=float), Provenance("", "")
    )
    if own is not None:
        rows = [(unit, *span) for unit, span in own]
        recording.unit_intervals = pd.DataFrame(rows, columns=["unit", "start", "stop"])
    return recording


@settings(max_examples=150)
@given(
    spikes=st.lists(st.tuples(TIMES, st.integers(0, UNITS - 1)), max_size=30),
    edges=st.lists(TIMES, min_size=2, max_size=6, unique=True).filter(lambda edges: len(edges) % 2 == 0),
    own=st.none() | st.lists(st.tuples(st.integers(0, UNITS - 1), st.tuples(TIMES, TIMES).map(sorted)), max_size=6),
)
def test_rates_are_of_the_spikes_and_seconds_that_were_observed(spikes: list, edges: list, own: list | None) -> None:
    observed = np.sort(edges).reshape(-1, 2)
    rates = observed_rates(made(spikes, observed.tolist(), own))
    for unit in range(UNITS):
        cells = {cell for start, stop in observed for cell in range(start, stop)}
        listed = [span for row, span in own or [] if row == unit]
        if listed:
            cells &= {cell for start, stop in listed for cell in range(start, stop)}
        # A time belongs to what was observed if it lies in an observed second or at either end of one.
        count = sum(row == unit and bool({time, time - 1} & cells) for time, row in spikes)
        assert rates[unit] == pytest.approx(count / len(cells) if cells else 0.0)


def test_spikes_that_nobody_can_have_observed_do_not_make_a_unit_active() -> None:
    spikes = [(time, 0) for time in np.linspace(10.1, 19.9, 50)] + [(time, 1) for time in np.linspace(0.1, 9.9, 10)]
    recording = made(spikes, [[0, 10]], None)
    assert select(recording, UnitSelection(min_rate=0.5), Path("f")).units["unit_id"].tolist() == ["b"]
    assert select(recording, UnitSelection(max_units=1), Path("f")).units["unit_id"].tolist() == ["b"]
    many = replace(recording, spike_units=np.full(60, 2**16, np.int32), units=pd.DataFrame(index=range(2**16 + 1)))
    assert observed_rates(many)[2**16] == 1.0  # units times ticks is more than 32 bits hold


def test_a_unit_without_an_interval_was_never_observed() -> None:
    recording = made([(1, 0), (2, 1)], [[0, 20]], None)
    recording.unit_intervals = unit_intervals(np.array([0]), np.array([[0.0, 20.0]]), units=[0, 2])
    mask = observed_windows(Trains.from_recording(recording), np.array([0]), bins=20, bin_ticks=100_000)
    assert mask.any(axis=(0, 1)).tolist() == [True, True, False]


@pytest.mark.parametrize("source", ["tables", "phy"])
def test_a_unit_that_is_lost_halfway_is_masked_and_not_silent(tmp_path: Path, source: str) -> None:
    times, units = np.array([0.5, 1.0, 2.0, 2.5, 4.0, 9.0]), np.array([3, 8, 3, 8, 5, 8])
    if source == "phy":
        np.save(tmp_path / "spike_times.npy", (times * 30_000).astype(np.uint64))
        np.save(tmp_path / "spike_clusters.npy", units)
    else:
        np.savez(tmp_path / "spikes.npz", time=times, unit=units)
    options = {"groups": "unsorted", "sampling_rate": 30_000} if source == "phy" else {}
    assert read_source(source, "s", tmp_path, options).unit_intervals is None
    recording = read_source(source, "s", tmp_path, options | {"unit_presence": "spike_range"})
    assert list(recording.units["unit_id"]) == ["3", "5", "8"]
    assert recording.unit_intervals.to_numpy().tolist() == [[0, 0.5, 2.0], [1, 4.0, 4.0], [2, 1.0, 9.0]]
    chosen = read_source(source, "s", tmp_path, options | {"unit_presence": "spike_range", "min_rate": 1.0})
    assert list(chosen.units["unit_id"]) == ["3"]  # two spikes in a second and a half, not in nine
