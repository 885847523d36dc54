"""Tables of millions of spikes: read piece by piece, to what they are when read as a whole, in no more memory."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.recording import Recording
from pipeline_lib.sources import columns, read_source
from tests.sources.conftest import refuses

SPIKES = pd.DataFrame({"time": [0, 1, 1, 2.5, 3, 4, 7], "unit": ["b2", "a", "b2", "b10", "a", "b10", "c"]})
WHOLE = SPIKES.assign(time=[0, 1, 1, 2, 3, 4, 7], unit=[2, 1, 2, 10, 1, 10, 3])


def written(path, table, index=None):
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    else:
        (table if index is None else table.set_index(index)).to_parquet(path, index=index is not None)
    return path


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("name", "table", "index"),
    [
        ("spikes.csv", SPIKES, None),
        ("spikes.csv", WHOLE, None),
        ("spikes.csv", SPIKES.assign(unit=["1", "2.0", "1.0", "x", "2", "1", "1"]), None),
        ("spikes.parquet", SPIKES, None),
        ("spikes.parquet", WHOLE.assign(note="x"), None),
        ("spikes.parquet", SPIKES.astype({"unit": "category"}), None),
        ("spikes.parquet", SPIKES, "time"),
        ("spikes.parquet", SPIKES, ["unit", "time"]),
    ],
)
def test_pieces_make_up_the_whole(tmp_path, monkeypatch, name, table, index, rows):
    path = written(tmp_path / name, table, index)
    whole = read_source("tables", "s", path)
    monkeypatch.setattr(columns, "PIECE", rows)
    pieces = read_source("tables", "s", path)
    for each in ("spike_times", "spike_units"):
        np.testing.assert_array_equal(getattr(pieces, each), getattr(whole, each), strict=True)
    pd.testing.assert_frame_equal(pieces.units, whole.units)


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("spikes.csv", SPIKES.assign(time=[0, 1, 1, 2, "late", 4, 5]), ("column time, row 4", "'late'")),
        ("spikes.csv", SPIKES.assign(time=["True", "True", "True", 2, 3, 4, 5]), ("column time, row 0", "numbers")),
        ("spikes.csv", SPIKES.assign(unit=["a", "a", "a", "a", "a", None, "a"]), ("column unit, row 5", "no id")),
        ("spikes.parquet", SPIKES.assign(time=[0, 1, 2, 3, 4, 5, 4.5]), ("column time, row 6", "4.5 s after 5.0 s")),
        ("spikes.parquet", WHOLE.astype({"unit": "Int64"}).mask(WHOLE["time"] == 4), ("column time, row 5", "nan")),
        ("spikes.parquet", SPIKES.rename(columns={"unit": "cell"}), ("column unit", "one of time, cell")),
        ("spikes.parquet", SPIKES[:0], ("an empty recording",)),
        ("spikes.csv", SPIKES[:0], ("an empty recording",)),
    ],
)
def test_rows_are_counted_from_the_first_piece(tmp_path, monkeypatch, name, table, said):
    path = written(tmp_path / name, table)
    for rows in (columns.PIECE, 3):
        monkeypatch.setattr(columns, "PIECE", rows)
        with refuses(name, *said):
            read_source("tables", "s", path)


@pytest.mark.parametrize("name", ["spikes.parquet", "spikes.csv"])
def test_sorting_needs_little_more_than_the_spikes_twice(tmp_path, monkeypatch, name):
    """Time and unit take 12 bytes a spike; the order, while they are sorted, 8 more. Text took a hundred and more."""
    monkeypatch.setattr(columns, "PIECE", 5_000)
    random, spikes = np.random.default_rng(0), 100_000
    unit = np.array([f"probe0-{unit}" for unit in range(50)], dtype=object)[random.integers(0, 50, spikes)]
    table = pd.DataFrame({"time": random.integers(0, 3600_000, spikes), "unit": unit})
    path, few = written(tmp_path / name, table), written(tmp_path / f"few_{name}", table[:50])
    del unit, table
    options = {"sort": True, "time_unit": "ms"}
    read_source("tables", "s", few, options).write(tmp_path / "recording")  # imports are not counted
    tracemalloc.start()
    read_source("tables", "s", path, options).write(tmp_path / "recording")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 45 * spikes
    assert len(Recording.read(tmp_path / "recording").spike_times) == spikes
