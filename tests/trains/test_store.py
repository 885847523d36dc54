"""The store: what goes in comes out, the same bytes every time, whole or not at all, and damage has a name."""

import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_tree
from pipeline_lib.stimulus import Stimulus
from pipeline_lib.trains import events, shards, store
from pipeline_lib.trains.binning import bin_windows
from pipeline_lib.trains.events import events_between, keys_of_parquet, keys_of_units, unpack
from pipeline_lib.trains.manifest import read_manifest
from pipeline_lib.trains.store import Trains, convert, write_store
from pipeline_lib.trains.tables import read_table, write_table


def _many_spikes(spikes: int = 300_000, units: int = 40, seconds: float = 200.0) -> list[np.ndarray]:
    """Enough for several chunks; times on a coarse grid, so that many spikes share a tick."""
    random = np.random.default_rng(3)
    unit = random.integers(0, units, spikes)
    times = random.integers(0, int(seconds * 1000), spikes) / 1000
    return [times[unit == number] for number in range(units)]


def _reference(spike_times: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ticks and units in the order (tick, unit), by a plain sort."""
    ticks = np.concatenate([np.rint(times * 1e5).astype(np.int64) for times in spike_times])
    unit = np.repeat(np.arange(len(spike_times)), [len(times) for times in spike_times])
    order = np.lexsort((unit, ticks))
    return ticks[order], unit[order]


def test_every_spike_comes_back_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_CHUNKS", 2)
    monkeypatch.setattr(shards, "SHARD", 2 * shards.CHUNK)  # several shards from few spikes
    times = _many_spikes()
    write_store(tmp_path, "s", times, 200.0)
    trains = Trains.open(tmp_path, verify=True)
    ticks, unit = _reference(times)
    np.testing.assert_array_equal(trains.ticks, ticks)
    np.testing.assert_array_equal(trains.unit, unit)
    assert len(list((tmp_path / "trains.zarr" / "events" / "delta" / "c").iterdir())) == 2


def test_zarr_reads_what_the_shard_writer_wrote(tmp_path):
    times = _many_spikes()
    write_store(tmp_path, "s", times, 200.0)
    events = zarr.open_group(str(tmp_path / "trains.zarr"), mode="r")["events"]
    ticks, unit = _reference(times)
    np.testing.assert_array_equal(events["delta"][:].cumsum(dtype="int64"), ticks)
    np.testing.assert_array_equal(events["unit"][:], unit)
    np.testing.assert_array_equal(events["anchor"][:], ticks[:: shards.CHUNK])
    np.testing.assert_array_equal(events["index"][:], np.searchsorted(ticks, np.arange(201) * 100_000))


def test_five_line_reader_of_the_docstring(tmp_path):
    times = _many_spikes()
    write_store(tmp_path, "s", times, 200.0)
    block = store.__doc__.split("seconds 10 to 20::")[1].split("and all of them")[0]
    lines = textwrap.dedent(block).strip()
    assert len(lines.splitlines()) == 5
    for first, stop in ((10, 20), (95, 97)):  # the second in the second chunk
        names = {"zarr": zarr}
        code = lines.replace('"trains.zarr"', repr(str(tmp_path / "trains.zarr")))
        exec(code.replace("[10]", f"[{first}]").replace("[20]", f"[{stop}]"), names)
        ticks, unit = _reference(times)
        inside = (ticks >= first * 100_000) & (ticks < stop * 100_000)
        np.testing.assert_array_equal(names["tick"], ticks[inside])
        np.testing.assert_array_equal(names["unit"], unit[inside])


def test_reading_between_two_ticks(tmp_path):
    times = _many_spikes()
    write_store(tmp_path, "s", times, 200.0)
    group = zarr.open_group(str(tmp_path / "trains.zarr"), mode="r")["events"]
    ticks, unit = _reference(times)
    for start, stop in (
        (0, 1),
        (1_234_500, 9_876_501),
        (0, 30_000_000),
        (19_999_000, 50_000_000),
        (30_000_000, 40_000_000),
    ):
        inside = (ticks >= start) & (ticks < stop)
        got_ticks, got_unit = events_between(group, start, stop)
        np.testing.assert_array_equal(got_ticks, ticks[inside])
        np.testing.assert_array_equal(got_unit, unit[inside])


def test_the_last_part_of_a_second(tmp_path):
    """The index ends with the number of events although the session does not end with a second, nor with a bin."""
    write_store(tmp_path, "s", [np.array([0.5, 2.1, 2.4, 2.52])], 2.55, bin_sizes=(100.0,))
    root = zarr.open_group(str(tmp_path / "trains.zarr"), mode="r")
    assert root["events/index"][:].tolist() == [0, 1, 1, 4]
    assert events_between(root["events"], 200_000, 250_000)[0].tolist() == [210_000, 240_000]
    assert root["counts/100ms"][:, 0].nonzero()[0].tolist() == [5, 21, 24, 25]


def test_same_bytes_in_any_order_and_by_any_route(recording, tmp_path):
    """Any order of the spikes, in memory or from the recording's file in pieces."""
    random = np.random.default_rng(0)
    times = [recording.spike_times[recording.spike_units == unit] for unit in range(20)]
    write_store(tmp_path / "sorted", "s1", times, 100.0)
    write_store(tmp_path / "shuffled", "s1", [random.permutation(own) for own in times], 100.0)
    assert sha256_tree(tmp_path / "sorted") == sha256_tree(tmp_path / "shuffled")
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "converted")
    events = Path("trains.zarr/events")
    assert sha256_tree(tmp_path / "converted" / events) == sha256_tree(tmp_path / "sorted" / events)
    pieces = keys_of_parquet(tmp_path / "recording" / "spikes.parquet", 20, 100.0, 777)
    np.testing.assert_array_equal(np.concatenate([*pieces]), np.concatenate([*keys_of_units(times, 100.0)]))


def test_the_same_conversion_gives_the_same_bytes(recording, converted, tmp_path):
    convert(tmp_path / "recording", tmp_path / "again", bin_sizes=(20, 5), memory_budget=2**26)
    assert sha256_tree(converted) == sha256_tree(tmp_path / "again")
    with pytest.raises(InputError, match="40 MiB"):
        convert(tmp_path / "recording", tmp_path / "none", memory_budget=2**20)


def test_a_tick_shared_by_two_slabs(monkeypatch):
    """Times crowd around the edges between slabs, within the rounding of a tick."""
    monkeypatch.setattr(events, "_SLAB", 100)
    random = np.random.default_rng(0)
    edges = np.linspace(0, 10.0, 4000 // 100 + 2)[1:-1]
    times = [np.sort(random.choice(edges, 400) + random.uniform(-2e-5, 2e-5, 400)) for _ in range(10)]
    ticks, unit = unpack(np.concatenate([*keys_of_units(times, 10.0)]))
    expected_ticks, expected_unit = _reference(times)
    np.testing.assert_array_equal(ticks, expected_ticks)
    np.testing.assert_array_equal(unit, expected_unit)


def test_a_tick_shared_by_two_pieces_of_the_stream(tmp_path):
    """Spikes of one tick in falling order of unit, around the border between two batches of rows."""
    count = 2**14 + 50
    times, unit = np.arange(count) / 1000, np.zeros(count, np.int32)
    times[2**14 - 5 : 2**14 + 5] = times[2**14 - 5]
    unit[2**14 - 5 : 2**14 + 5] = np.arange(10)[::-1]
    pd.DataFrame({"time": times, "unit": unit}).to_parquet(tmp_path / "spikes.parquet")
    blocks = list(keys_of_parquet(tmp_path / "spikes.parquet", 10, 100.0, 2**14))
    assert len(blocks) > 1
    keys = np.concatenate(blocks)
    assert (np.diff(keys.astype(np.int64)) >= 0).all()
    np.testing.assert_array_equal(np.sort(unpack(keys)[1]), np.sort(unit))


@pytest.mark.parametrize(
    ("times", "units", "field"),
    [
        ([0.5, 0.2], [0, 0], "time"),
        ([0.5, np.nan], [0, 0], "time"),
        ([-0.5, 0.2], [0, 0], "time"),
        ([0.5, 2.0], [0, 0], "time"),
        ([0.1, 0.2], [0, 2], "unit"),
        ([0.1, 0.2], [-1, 1], "unit"),
    ],
)
def test_spikes_that_break_the_contract(times, units, field, tmp_path):
    frame = pd.DataFrame({"time": times, "unit": np.array(units, np.int32)})
    frame.to_parquet(tmp_path / "spikes.parquet")
    for rows in (1000, 1):  # in one batch, and on both sides of its end
        with pytest.raises(InputError) as error:
            list(keys_of_parquet(tmp_path / "spikes.parquet", 2, 1.0, rows))
        assert field in error.value.field


@pytest.mark.parametrize("bad", [np.nan, -0.1, 10.1, np.inf])
def test_times_outside_the_session(bad):
    with pytest.raises(InputError, match="unit 1"):
        keys_of_units([np.array([1.0]), np.array([1.0, bad])], 10.0)


def test_too_many_units_and_no_spike(tmp_path):
    with pytest.raises(InputError, match="65534 units"):
        write_store(tmp_path / "many", "s", [np.array([0.1])] * 65_535, 1.0)
    with pytest.raises(InputError, match="empty recording"):
        write_store(tmp_path / "none", "s", [np.array([])], 1.0)
    assert not (tmp_path / "none" / "manifest.json").exists()


def test_tables_and_intervals_come_back(converted, recording):
    trains = Trains.open(converted)
    pd.testing.assert_frame_equal(trains.units, recording.units)
    expected = recording.trials.assign(note=recording.trials["note"].where(recording.trials["note"].notna()))
    pd.testing.assert_frame_equal(trains.trials, expected, check_dtype=False)
    pd.testing.assert_frame_equal(trains.signals["running"], recording.signals["running"])
    assert trains.observed.tolist() == [[0, 8_000_000], [8_500_000, 10_000_000]]  # touching intervals are one
    assert trains.unit_intervals.tolist() == [[3, 0, 2_000_000], [3, 3_000_000, 6_000_000]]


def test_columns_of_anything_come_back_as_what_they_hold():
    """What is missing in whatever way is None, arrays are lists, and truth values are no text."""
    anything = pd.Series(["a", pd.NaT, pd.NA, None, np.float64(2.5), np.array([1, 2])], dtype=object)
    frame = pd.DataFrame({"anything": anything, "lit": np.array([True, False] * 3, dtype=object)})
    root = zarr.create_group({})
    write_table(root, "trials", frame, "trial")
    found = read_table(root, "trials")
    assert found["anything"].tolist() == ["a", None, None, None, 2.5, [1, 2]]
    assert found["lit"].dtype == bool and found["lit"].tolist() == frame["lit"].tolist()


def test_units_of_signals_come_back_and_refit_nothing(converted, recording, tmp_path):
    before = read_manifest(converted)
    recording.signals["running"].attrs["units"] = {"speed": "cm/s"}
    recording.write(tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "with", bin_sizes=(5, 20))
    after, trains = read_manifest(tmp_path / "with"), Trains.open(tmp_path / "with", verify=True)
    assert trains.signals["running"].attrs == {"units": {"speed": "cm/s"}}
    assert not trains.trials.attrs and not Trains.open(converted).signals["running"].attrs
    assert after["content_hash"] == before["content_hash"]
    assert {name for name, digest in after["files"].items() if digest != before["files"][name]} == {"zarr.json"}
    assert "signal_units" not in zarr.open_group(converted / "trains.zarr", mode="r").attrs


@pytest.mark.parametrize("name", ["", "n" * 300, "é" * 200, "go%2Ecue"])
def test_a_column_without_a_name_of_its_own_is_refused(recording, name, tmp_path):
    recording.trials = recording.trials.assign(**{"go.cue": 1.0, name: 2.0})
    recording.write(tmp_path / "recording")
    with pytest.raises(InputError, match="trials: column: found '"):
        convert(tmp_path / "recording", tmp_path / "trains")


def test_xarray_opens_counts_and_tables(converted):
    xarray = pytest.importorskip("xarray")
    trains = Trains.open(converted)
    counts = xarray.open_zarr(converted / "trains.zarr", group="counts", consolidated=True)
    for name, width, bins in (("5ms", 500, 20_000), ("20ms", 2000, 5000)):
        assert counts[name].dims == (f"time_{name}", "unit")
        np.testing.assert_array_equal(counts[name], bin_windows(trains, np.array([0]), bins, width)[0])
        np.testing.assert_allclose(counts[f"time_{name}"], np.arange(bins) * width / 1e5)
    units = xarray.open_zarr(converted / "trains.zarr", group="units")
    assert units["population"].values.tolist() == trains.units["population"].tolist()


def test_stored_counts_widen_rather_than_wrap(tmp_path):
    write_store(tmp_path, "s", [np.array([0.1]), np.linspace(5.0, 5.004, 700)], 6.0, bin_sizes=(5.0,))
    counts = zarr.open_group(str(tmp_path / "trains.zarr"), mode="r")["counts/5ms"]
    assert counts.dtype == np.uint16 and counts[1000, 1] == 700 and counts[:].sum() == 701


def test_another_bin_size_keeps_the_content_hash(converted, tmp_path):
    convert(tmp_path / "recording", tmp_path / "other", bin_sizes=())
    assert read_manifest(tmp_path / "other")["content_hash"] == read_manifest(converted)["content_hash"]


def test_another_spike_changes_the_content_hash(recording, converted, tmp_path):
    recording.spike_times[7] = recording.spike_times[8]
    recording.write(tmp_path / "changed")
    convert(tmp_path / "changed", tmp_path / "other")
    assert read_manifest(tmp_path / "other")["content_hash"] != read_manifest(converted)["content_hash"]


@pytest.mark.parametrize("what", ["units", "trials", "observed", "unit_intervals", "signals", "duration", "stimulus"])
def test_whatever_else_a_fit_may_read_changes_the_content_hash_too(recording, converted, tmp_path, what):
    if what in ("units", "trials"):
        table = getattr(recording, what)
        table.loc[3, "population" if what == "units" else "start"] = "other" if what == "units" else 6.4
    elif what == "observed":
        recording.observed[2, 1] = 99.0
    elif what == "unit_intervals":
        recording.unit_intervals["stop"] -= 1.0
    elif what == "signals":
        recording.signals["running"]["speed"] += 1.0
    elif what == "stimulus":
        recording.stimulus = Stimulus(np.zeros((1, 2, 2), np.uint8), np.zeros(1), np.zeros(1, np.int32))
    else:
        recording.duration = 101.0
    recording.write(tmp_path / "changed")
    convert(tmp_path / "changed", tmp_path / "other")
    assert read_manifest(tmp_path / "other")["content_hash"] != read_manifest(converted)["content_hash"]


CONVERT = """
import sys, time
from pipeline_lib.trains import store
write = store.write_table
def slow(*arguments):
    print("half way", flush=True)
    time.sleep(60)
store.write_table = slow
store.convert(sys.argv[1], sys.argv[2])
"""


def test_whose_spikes_and_how_long_they_were_recorded_is_in_the_content_hash(tmp_path):
    hashes = set()
    for session, duration in (("a", 2.2), ("b", 2.2), ("a", 2.4)):  # the same spikes, in the same second
        write_store(tmp_path / "s", session, [np.array([0.5])], duration, observed=np.array([[0.0, 2.0]]))
        hashes.add(read_manifest(tmp_path / "s")["content_hash"])
    assert len(hashes) == 3


def test_killed_conversion_leaves_no_store(recording, tmp_path):
    recording.write(tmp_path / "recording")
    process = subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(tmp_path / "recording"), str(tmp_path / "trains")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout.readline() == b"half way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / "trains" / ".writing" / "trains.zarr").exists()
    with pytest.raises(InputError):
        Trains.open(tmp_path / "trains")
    convert(tmp_path / "recording", tmp_path / "trains")
    assert not (tmp_path / "trains" / ".writing").exists()
    shutil.copytree(tmp_path / "trains", tmp_path / "after_kill")
    shutil.rmtree(tmp_path / "trains")
    convert(tmp_path / "recording", tmp_path / "trains")
    assert sha256_tree(tmp_path / "after_kill") == sha256_tree(tmp_path / "trains")


def test_opening_is_light(converted):
    code = f"""
import sys
from pipeline_lib.trains.store import Trains
from pipeline_lib.trains.binning import bin_windows
Trains.open({str(converted)!r}).units
assert not {{"torch", "pynwb", "scipy", "matplotlib"}} & set(sys.modules), sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


PEAK = """
import sys
from pathlib import Path
from pipeline_lib.trains.store import convert, read_manifest
import pyarrow.parquet, pandas, zarr, google_crc32c
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
convert(sys.argv[1], sys.argv[3], memory_budget=int(sys.argv[4]))
before = peak()
convert(sys.argv[2], sys.argv[3], memory_budget=int(sys.argv[4]))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_conversion_stays_within_its_budget(recording, tmp_path):
    """96 MB of spikes through a budget of 64 MiB, above what a tiny session takes."""
    recording.write(tmp_path / "tiny")
    random = np.random.default_rng(0)
    count = 8_000_000
    recording.spike_times = np.sort(random.uniform(0, 100, count))
    recording.spike_units = random.integers(0, 20, count).astype(np.int32)
    recording.write(tmp_path / "large")
    budget = 2**26
    arguments = [sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in ("tiny", "large", "out")), str(budget)]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(run.stdout) < budget, f"{int(run.stdout) / 2**20:.0f} MiB"


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"duration": np.inf}, "duration"),
        ({"observed": np.array([[np.nan, 2.0]])}, "observed"),
        ({"observed": np.array([0.0, 2.0])}, "observed"),
        ({"units": pd.DataFrame({"unit_id": ["a", "a"], "region": "", "population": ""})}, "'a' twice"),
        ({"units": pd.DataFrame({"unit_id": ["a", "b"]})}, "units.region"),
        ({"trials": pd.DataFrame({"start": [0.0], "stop": [1.0]})}, "trials.condition"),
    ],
)
def test_a_store_made_by_hand_keeps_to_the_contract_of_a_recording(more, match, tmp_path):
    with pytest.raises(InputError, match=match):
        write_store(tmp_path / "x", "x", [np.array([1.0]), np.array([2.0])], **{"duration": 3.0} | more)
    assert not (tmp_path / "x").exists()
