"""What a recording refuses, and what is left of an earlier one in its folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.recording import Provenance, Recording, Truth
from pipeline_lib.stimulus import Stimulus
from pipeline_lib.trains.binning import observed_windows
from pipeline_lib.trains.store import Trains, convert, write_store
from tests.sources.conftest import refuses

DAMAGES = {"cut": lambda path: path.write_bytes(path.read_bytes()[:60]), "removed": Path.unlink}


@pytest.fixture
def plain() -> Recording:
    """Two units, two trials, nothing else."""
    return Recording(
        session="day1",
        spike_times=np.array([0.2, 0.7, 2.1]),
        spike_units=np.array([0, 1, 0], np.int32),
        units=pd.DataFrame({"unit_id": ["a", "b"], "region": "CA1", "population": "CA1"}),
        trials=pd.DataFrame({"start": [0.0, 2.0], "stop": [1.0, 3.0], "condition": ["left", "right"]}),
        duration=3.0,
        observed=np.array([[0.0, 3.0]]),
        provenance=Provenance("mine", "day1"),
    )


def test_nothing_of_an_earlier_recording_stays_in_the_folder(plain: Recording, tmp_path: Path) -> None:
    """Reading a session again with other options makes it anew: what the options took away must not be found there."""
    full = replace(
        plain,
        unit_intervals=pd.DataFrame({"unit": [0], "start": [0.0], "stop": [1.0]}),
        candidates=plain.units.assign(kept=True),
        signals={"running": pd.DataFrame({"time": [0.0], "running": [1.0]})},
        truth=Truth({"coupling": np.zeros((2, 2))}, {"unit_id": ["a", "b"]}),
        stimulus=Stimulus(np.zeros((1, 2, 2), np.uint8), np.zeros(1), np.zeros(1, np.int32)),
    )
    plain.write(tmp_path / "alone")
    full.write(tmp_path / "again")
    (tmp_path / "again" / "notes.txt").write_text("the user's own")
    plain.write(tmp_path / "again")
    found = {path.name for path in (tmp_path / "again").iterdir()}
    assert found == {path.name for path in (tmp_path / "alone").iterdir()} | {"notes.txt"}
    read = Recording.read(tmp_path / "again")
    assert (read.unit_intervals, read.candidates, read.truth, read.stimulus, read.signals) == (None,) * 4 + ({},)


@pytest.mark.parametrize(("column", "value"), [("start", np.nan), ("stop", np.inf), ("stop", 0.5), ("unit", -1)])
def test_intervals_of_units_are_finite_and_forward(plain: Recording, column: str, value: float) -> None:
    own = pd.DataFrame({"unit": [0, 1], "start": [0.0, 1.0], "stop": [1.0, 2.0]})
    replace(plain, unit_intervals=own).validate()
    own.loc[1, column] = value
    with refuses(f"unit_intervals.{column}, row 1", str(value)):
        replace(plain, unit_intervals=own).validate()


def test_a_spike_may_lie_at_either_end_of_the_session_and_nowhere_beyond(plain: Recording) -> None:
    plain.spike_times[:] = [0.0, 3.0, 3.0]  # two at one time, too
    plain.validate()
    for row, time, words in ((0, -1e-9, "row 0"), (2, 3.0 + 1e-9, "0 to 3.0 s"), (1, np.nan, "row 1")):
        times = plain.spike_times.copy()
        times[row] = time
        with refuses("spikes.time", words):
            replace(plain, spike_times=times).validate()
    for unit in (-1, 2):
        with refuses("spikes.unit, row 2", f"found {unit}", "0 to 1"):
            replace(plain, spike_units=np.array([0, 1, unit], np.int32)).validate()


def test_what_was_observed_goes_forward_and_may_touch(plain: Recording) -> None:
    for observed in ([[0.0, 1.0], [1.0, 3.0]], [[0.5, 0.5], [1.0, 2.0]]):
        replace(plain, observed=np.array(observed)).validate()
    for observed in ([[0.0, 2.0], [1.0, 3.0]], [[2.0, 1.0]], [[1.0, 2.0], [0.0, 0.5]], [[-0.5, 1.0]]):
        with refuses("observed", "sorted intervals"):
            replace(plain, observed=np.array(observed)).validate()
    with refuses("unit_intervals.unit, row 0", "found 2", "0 to 1"):
        replace(plain, unit_intervals=pd.DataFrame({"unit": [2], "start": [0.0], "stop": [1.0]})).validate()


def test_a_trial_does_not_end_before_it_starts(plain: Recording) -> None:
    plain.trials["stop"] = [1.0, 2.0]  # the second begins then: an event without length
    plain.validate()
    plain.trials["stop"] = [1.0, 1.5]
    with refuses("trials.stop, row 1", "1.5 s, with a start at 2.0 s"):
        plain.validate()


def test_a_trial_without_a_condition_is_named(plain: Recording) -> None:
    plain.trials["condition"] = ["left", None]
    with refuses("trials.condition, row 1", "text"):
        plain.validate()


@pytest.mark.parametrize("name", ["recording.json", "spikes.parquet", "units.parquet", "trials.parquet"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_recording_is_named_where_it_is_read_and_converted(
    plain: Recording, name: str, damage: str, tmp_path: Path
) -> None:
    plain.write(tmp_path / "recording")
    DAMAGES[damage](tmp_path / "recording" / name)
    with refuses(name):
        Recording.read(tmp_path / "recording")
    with refuses(name):
        convert(tmp_path / "recording", tmp_path / "trains")
    assert not (tmp_path / "trains" / "manifest.json").exists()


def test_a_unit_that_was_never_there_is_never_observed(plain: Recording, tmp_path: Path) -> None:
    """An empty interval says so (a probe that was invalid all along); a unit without a row is always observed."""
    own = pd.DataFrame({"unit": [1], "start": [0.0], "stop": [0.0]})
    recording = replace(plain, unit_intervals=own)
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    for trains in (Trains.open(tmp_path / "trains"), Trains.from_recording(recording)):
        seen = observed_windows(trains, np.array([0, 100_000]), bins=10, bin_ticks=10_000)
        assert seen[:, :, 0].all()
        assert not seen[:, :, 1].any()


def test_what_other_systems_leave_beside_a_file_is_no_signal(plain: Recording, tmp_path: Path) -> None:
    """macOS keeps on a shared disk what that cannot hold, in `._name`: results that were copied there were damaged."""
    plain.signals["running"] = pd.DataFrame({"time": [0.0], "speed": [1.0]})
    plain.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "before")
    (tmp_path / "recording/signals/._running.parquet").write_bytes(b"\0\5\x16\7")
    assert set(Recording.read(tmp_path / "recording").signals) == {"running"}
    convert(tmp_path / "recording", tmp_path / "after")
    before, after = (Trains.open(tmp_path / name).content_hash for name in ("before", "after"))
    assert before == after


def test_units_of_signals_come_back_and_are_there_for_any_reader_of_parquet(plain: Recording, tmp_path: Path) -> None:
    plain.signals["running"] = pd.DataFrame({"time": [0.0], "speed": [1.0], "moving": [1.0]})
    plain.write(tmp_path / "without")
    plain.signals["running"].attrs["units"] = {"speed": "cm/s"}
    plain.write(tmp_path / "with")
    kept = [Recording.read(tmp_path / name).signals["running"].attrs for name in ("without", "with")]
    assert kept == [{}, {"units": {"speed": "cm/s"}}]
    assert b"PANDAS_ATTRS" not in (tmp_path / "without/signals/running.parquet").read_bytes()


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ("cm/s", ("running, units", "'cm/s'", "by column")),
        ({"spead": "cm/s"}, ("running, units", "'spead'", "speed")),
        ({"speed": 5}, ("unit of speed", "5", "text")),
    ],
)
def test_units_of_signals_are_text_by_column(plain: Recording, units: object, words: tuple[str, ...]) -> None:
    plain.signals["running"] = pd.DataFrame({"time": [0.0], "speed": [1.0]})
    plain.signals["running"].attrs["units"] = units
    with refuses("signals/", *words):
        plain.validate()


def test_a_signal_goes_forward_in_time(plain: Recording) -> None:
    """Between samples out of order anything would be interpolated."""
    plain.signals["running"] = pd.DataFrame({"time": [0.0, 2.0, 1.0], "running": [1.0, 2.0, 3.0]})
    with refuses("signals/running.time, row 2", "1.0 s after 2.0 s", "sorted"):
        plain.validate()


def test_nothing_is_observed_after_the_end(plain: Recording) -> None:
    """Windows there would be of units that never fire."""
    plain.observed = np.array([[0.0, 1.0], [2.0, 3.5]])
    with refuses("observed", "3.5 s", "0 to 3.0 s"):
        plain.validate()
    with refuses("observed", "3.5 s"):
        write_store("none", "day1", [np.array([0.5])], duration=3.0, observed=plain.observed)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda content: [], "schema_version"),
        (lambda content: 1, "content"),
        (lambda content: {name: content[name] for name in content if name != "licence"}, "licence"),
        (lambda content: content | {"duration": "long"}, "observed and duration"),
        (lambda content: content | {"observed": [[0.0, None]]}, "observed, row 1"),
        (lambda content: content | {"observed": [[0.0, 4.0]]}, "4.0 s"),
    ],
)
def test_a_description_that_is_not_the_one_that_was_written(
    plain: Recording, change: Callable, word: str, tmp_path: Path
) -> None:
    plain.write(tmp_path / "recording")
    path = tmp_path / "recording/recording.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with refuses("recording.json", word):
        Recording.read(tmp_path / "recording")
    with refuses("recording.json", word):
        convert(tmp_path / "recording", tmp_path / "trains")


@pytest.mark.parametrize("spikes", [{"time": ["a"], "unit": [0]}, {"time": [0.5], "cluster": [0]}])
def test_spikes_that_are_no_numbers(plain: Recording, spikes: dict, tmp_path: Path) -> None:
    plain.write(tmp_path / "recording")
    pd.DataFrame(spikes).to_parquet(tmp_path / "recording/spikes.parquet")
    with refuses("spikes"):
        Recording.read(tmp_path / "recording")
    with refuses("spikes.parquet"):
        convert(tmp_path / "recording", tmp_path / "trains")
