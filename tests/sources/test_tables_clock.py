"""Times of tables in a unit, or on a clock, that is not what they are read as."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import read_source
from tests.sources.conftest import refuses
from tests.sources.test_tables import TIMES, write_spikes


def test_samples_taken_for_seconds_are_refused(tmp_path):
    path = write_spikes(tmp_path / "spikes.csv", times=TIMES * 30_000 * 3600)
    with refuses("times", "are these seconds?"):
        read_source("tables", "s", path)
    samples = {"time_unit": "samples", "sampling_rate": 30_000}
    assert read_source("tables", "s", path, samples).duration == 1.5 * 3600


def minute(rng: np.random.Generator, rates: tuple[float, ...] = (0.5, 5.0, 40.0)) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of a minute, s, and their units: Poisson but for 2 ms in which a unit does not fire again."""
    trains = [np.cumsum(rng.exponential(1 / rate, int(60 * rate)) + 0.002) for rate in rates]
    return np.concatenate(trains), np.repeat(np.arange(len(trains)), [len(train) for train in trains])


@pytest.mark.parametrize(("unit", "per_second"), [("ms", 1000), ("samples", 30_000)])
def test_a_minute_in_another_unit_is_no_long_session(tmp_path, unit, per_second):
    times, units = minute(np.random.default_rng(0))
    path = write_spikes(tmp_path / "spikes.csv", times * per_second, units)
    with refuses("spikes.csv: column time", "hours, in which 0.0% of spikes follow another", "time_unit"):
        read_source("tables", "s", path, {"sort": True})
    told = {"sort": True, "time_unit": unit} | ({"sampling_rate": 30_000} if unit == "samples" else {})
    assert read_source("tables", "s", path, told).duration == pytest.approx(times.max())
    assert read_source("tables", "s", path, {"sort": True, "time_unit": "s"}).duration > 10 * 3600, (
        "who says so is heard"
    )


@pytest.mark.parametrize("rates", [(0.1,), (1.0, 0.01), (20.0,)])
def test_recordings_of_weeks_are_read(tmp_path, rates):
    """A slow neuron without bursts, one that is all but silent, and one that is recorded for a minute a day."""
    rng = np.random.default_rng(1)
    if rates == (20.0,):
        day = minute(rng, rates)[0]
        times, units = np.concatenate([day + 86_400 * number for number in range(21)]), np.zeros(21 * len(day), int)
    else:
        trains = [np.sort(rng.uniform(0, 14 * 86_400, int(14 * 86_400 * rate))) for rate in rates]
        times, units = np.concatenate(trains), np.repeat(np.arange(len(rates)), [len(train) for train in trains])
    path = write_spikes(tmp_path / "spikes.parquet", times, units)
    assert read_source("tables", "s", path, {"sort": True}).duration > 13 * 86_400


def test_a_clock_that_was_started_long_before_is_no_silence(tmp_path):
    """All units would have been silent for an hour and a half: no rate would be right, and `min_rate` keep none."""
    times = 5321 + np.arange(0.05, 60, 0.1)
    pd.DataFrame({"time": times, "unit": np.arange(600) % 5}).to_csv(tmp_path / "spikes.csv", index=False)
    with refuses("spikes.csv", "session: found nothing before 5321.05 s of 5380.95 s", "option observed"):
        read_source("tables", "s", tmp_path)
    assert read_source("tables", "s", tmp_path, {"unit_presence": "spike_range"}).duration == times.max()
    (tmp_path / "observed.csv").write_text("start,stop\n5321,5381\n")
    recording = read_source("tables", "s", tmp_path, {"min_rate": 1.9})
    assert recording.observed.tolist() == [[5321.0, 5381.0]] and len(recording.units) == 5
    (tmp_path / "observed.csv").unlink()
    (tmp_path / "trials.csv").write_text("start,stop\n2,3\n5330,5331\n")  # it was recorded, and nobody fired
    assert read_source("tables", "s", tmp_path).observed.tolist() == [[0.0, times.max()]]


@pytest.mark.parametrize("role", ["trials", "observed", "signals/running"])
def test_tables_in_another_unit_than_the_spikes(tmp_path, role):
    times, units = minute(np.random.default_rng(2))
    write_spikes(tmp_path / "spikes.csv", times, units)
    (tmp_path / "signals").mkdir()
    edges = np.arange(0, 60_000, 1000.0)
    columns = {"time": edges, "x": edges} if "/" in role else {"start": edges, "stop": edges + 500}
    pd.DataFrame(columns).to_csv(tmp_path / f"{role}.csv", index=False)
    with refuses(f"{role}.csv", "time" if "/" in role else "column stop", "spikes up to 6", "the unit of the spikes"):
        read_source("tables", "s", tmp_path, {"sort": True})
    assert read_source("tables", "s", tmp_path, {"sort": True, "time_unit": "s"})
    pd.DataFrame({name: values / 1000 for name, values in columns.items()}).to_csv(
        tmp_path / f"{role}.csv", index=False
    )
    assert read_source("tables", "s", tmp_path, {"sort": True})
