"""Quality of the units that a selection chose from, against values worked out unit by unit."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.recording import Recording
from pipeline_lib.sources.candidates import candidates, excerpt
from pipeline_lib.sources.selection import UnitSelection, select

WHERE = Path("file.nwb")


def brute(recording: Recording, unit: int) -> tuple[float, float]:
    """Presence and violations of one unit, from their definitions."""
    times = sorted(recording.spike_times[recording.spike_units == unit])
    parts = {min(int(time / recording.duration * 100), 99) for time in times}
    short = [after - before < 0.0015 for before, after in itertools.pairwise(times)]
    return len(parts) / 100, float(np.mean(short)) if short else float("nan")


@pytest.mark.parametrize("order", ["time", "unit", "random"])
def test_quality_is_that_of_each_unit_whatever_the_order_of_spikes(recording: Recording, order: str) -> None:
    rng = np.random.default_rng(0)
    # A burst, a unit of one spike and a silent one.
    end, last = recording.spike_times[-1], recording.spike_units[-1:]
    # The last spike is at the end, and belongs to the last part as the one before it does.
    recording = replace(
        recording,
        duration=end,
        spike_times=np.insert(recording.spike_times, -1, end - 1e-6),
        spike_units=np.insert(recording.spike_units, -1, last),
    )
    times = np.concatenate([recording.spike_times, 1.0 + 0.001 * np.arange(20), [2.0]])
    units = np.concatenate([recording.spike_units, np.full(20, 1), [len(recording.units)]]).astype(np.int32)
    places = {"time": np.argsort(times), "unit": np.lexsort((times, units)), "random": rng.permutation(len(times))}
    table = pd.concat([recording.units, recording.units.iloc[:2].assign(unit_id=["one", "silent"])], ignore_index=True)
    whole = replace(recording, spike_times=times[places[order]], spike_units=units[places[order]], units=table)
    found = candidates(whole, np.ones(len(table), dtype=bool))
    for unit in range(len(table)):
        presence, violations = brute(whole, unit)
        assert found.loc[unit, "presence"] == pytest.approx(presence)
        assert found.loc[unit, "violations"] == pytest.approx(violations, nan_ok=True)
        seen = [start <= time <= stop for time in times[units == unit] for start, stop in whole.observed]
        assert found.loc[unit, "rate"] == pytest.approx(sum(seen) / 4.0)
    assert found["violations"][1] > 0.1 and np.isnan(found["violations"].iloc[-1])


def test_a_selection_remembers_what_it_left_out_and_only_then(recording: Recording, tmp_path: Path) -> None:
    assert select(recording, UnitSelection(), WHERE).candidates is None
    region = str(recording.units["region"].iloc[0])
    chosen = select(recording, UnitSelection(regions=(region,)), WHERE)
    kept = (recording.units["region"] == region).tolist()
    assert chosen.candidates is not None and chosen.candidates["kept"].tolist() == kept
    assert chosen.candidates["unit_id"].tolist() == recording.units["unit_id"].tolist()
    path = tmp_path / "chosen"
    replace(chosen, truth=None).write(path)
    again = Recording.read(path).candidates
    pd.testing.assert_frame_equal(again, chosen.candidates, check_dtype=False)


def test_some_spikes_of_units_left_out_are_kept_and_only_of_those(recording: Recording) -> None:
    region = str(recording.units["region"].iloc[0])
    chosen = select(recording, UnitSelection(regions=(region,)), WHERE)
    assert chosen.candidates is not None
    start, stop = excerpt(chosen.trials["start"].to_numpy(), chosen.observed)
    for unit, candidate in enumerate(chosen.candidates.itertuples()):
        times = np.sort(recording.spike_times[recording.spike_units == unit])
        expected = times[(start <= times) & (times < stop)] if not candidate.kept else []
        np.testing.assert_array_equal(candidate.excerpt, expected)
    assert sum(map(len, chosen.candidates["excerpt"])) > 0


@pytest.mark.parametrize(
    ("trials", "observed", "expected"),
    [
        ([50.0, 10.0, 30.0], [[0, 100]], (30, 40)),
        ([10.0, 96.0, 97.0], [[0, 100]], (90, 100)),  # the whole length, up to the end
        ([5.0, 52.0, 95.0], [[0, 20], [50, 55], [90, 100]], (50, 55)),  # no more than was observed at a stretch
        ([30.0], [[0, 20], [50, 55]], (30, 40)),  # a trial outside of what was observed
        ([], [[0, 10], [50, 70]], (55, 65)),  # the middle of 30 s observed
    ],
)
def test_the_excerpt_begins_with_the_middle_trial(trials: list, observed: list, expected: tuple) -> None:
    assert excerpt(np.array(trials), np.array(observed, dtype=float)) == expected


@pytest.mark.filterwarnings("error")
def test_times_that_are_no_numbers_are_left_to_the_check_that_follows(recording: Recording) -> None:
    times = np.where(np.arange(len(recording.spike_times)) % 3, recording.spike_times, np.nan)
    broken = replace(recording, spike_times=times, duration=0.0)
    found = candidates(broken, np.ones(6, dtype=bool))
    assert len(found) == 6
