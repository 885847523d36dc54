"""Time 0 of a figure is the event that windows are aligned to, not where they begin."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.figures import latents, psth, raster_rates
from pipeline_lib.figures.excerpts import time_label
from pipeline_lib.recording import Recording
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import convert
from tests.figures.made_up_results import Results


def test_a_split_knows_the_event_and_older_files_are_still_read(around_event: Results, tmp_path) -> None:
    import json

    import pyarrow.parquet as parquet

    split = Split.read(around_event.split)
    assert (split.event, split.before) == ("start", 0.2)
    table = parquet.read_table(around_event.split)
    header = json.loads(table.schema.metadata[b"trainyard"])
    del header["event"], header["before"]
    parquet.write_table(table.replace_schema_metadata({b"trainyard": json.dumps(header).encode()}), tmp_path / "old")
    old = Split.read(tmp_path / "old")
    assert (old.event, old.before) == ("", 0.0) and old.bin_ticks == split.bin_ticks


def test_average_responses_count_time_from_the_event(around_event: Results) -> None:
    table = psth.data(around_event.trains, around_event.split, around_event.fits)
    recording, split = Recording.read(around_event.recording), Split.read(around_event.split)
    assert set(table["event"]) == {"start"}
    assert table["time"].min() == pytest.approx(-0.2 + 0.025) and table["time"].max() == pytest.approx(1.0 - 0.025)
    test = split.part(around_event.session, "test")
    measured = table[table["source"] == "measured"]
    condition, unit = measured["condition"].iloc[0], int(measured["unit"].iloc[0])
    spikes = recording.spike_times[recording.spike_units == unit]
    trial = test.loc[test["condition"] == condition, "trial"].to_numpy()
    own = measured[(measured["condition"] == condition) & (measured["unit"] == unit)].set_index("time")["value"]
    for time, value in own.items():
        events = recording.trials["start"].to_numpy()[trial]
        counts = [
            ((spikes >= event + time - 0.025 - 5e-6) & (spikes < event + time + 0.025 - 5e-6)).sum() for event in events
        ]
        assert value == pytest.approx(np.mean(counts) / 0.05)


def test_the_spikes_of_a_window_stand_at_their_distance_from_the_event(around_event: Results) -> None:
    table = raster_rates.data(around_event.trains, around_event.split, around_event.fits)
    recording = Recording.read(around_event.recording)
    clock = table.loc[table["kind"] == "clock", "value"].item()
    assert np.abs(recording.trials["start"] - clock).min() < 1e-5, "0 is the start of a trial"
    spikes = table[table["kind"] == "spike"]
    times = recording.spike_times
    inside = times[(times >= clock - 0.2) & (times < clock + 1.0)]
    assert np.allclose(np.sort(spikes["time"] + clock), inside, atol=1.1e-5)
    rates = table[table["kind"] == "rate"]
    assert rates["time"].min() > -0.2 and rates["time"].min() < -0.18


def test_units_are_hidden_in_their_rows_and_at_their_time_from_the_event(around_event: Results, tmp_path: Path) -> None:
    paths = around_event.trains, around_event.split, around_event.fits
    table = raster_rates.data(*paths)
    clock = table.loc[table["kind"] == "clock", "value"].item()
    recording = Recording.read(around_event.recording)
    seen = [(7, 0.0, clock + 0.3), (7, clock + 0.6, recording.duration), (2, clock - 0.1, recording.duration)]
    recording.unit_intervals = pd.DataFrame(seen, columns=["unit", "start", "stop"]).sort_values("unit")
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    found = raster_rates.data(tmp_path / "trains", *paths[1:])
    hidden = found[found["kind"] == "hidden"].set_index("unit")[["time", "value"]]
    assert hidden.loc[7].tolist() == pytest.approx([0.3, 0.3]) and hidden.loc[2].tolist() == pytest.approx([-0.2, 0.1])
    rows = found[found["kind"].isin(["hidden", "rate"])].groupby("unit")["row"].unique()
    assert len(hidden) == 2 and all(len(row) == 1 for row in rows), "a unit has one row"


def test_the_axis_names_the_event(around_event: Results) -> None:
    assert time_label("stimulus_onset") == "Time from stimulus onset (s)"
    assert time_label("") == time_label(float("nan")) == "Time in window (s)"
    for module, needs in ((psth, ("trains", "split", "fits")), (latents, ("split", "trains", "fits"))):
        figure = module.draw(module.data(*(getattr(around_event, need) for need in needs)))
        labels = {axes.get_xlabel() for axes in figure.axes}
        assert "Time from start (s)" in labels
