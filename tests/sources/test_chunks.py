from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline_lib.plan import resolve
from pipeline_lib.sources import read_source
from pipeline_lib.trains.binning import bin_windows, observed_windows
from pipeline_lib.trains.splits import make_split
from pipeline_lib.trains.store import Trains, convert
from tests.sources.conftest import refuses

COUNTS = np.array([[0, 1, 0, 3], [2, 0, 0, 0]])


def write_chunk(folder, bins, units, counts):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"probe_{bins[0]}-{bins[1]}_{units[0]}-{units[1]}.parquet"
    frame = pd.DataFrame(np.asarray(counts))
    frame.columns = frame.columns.astype(str)
    frame.to_parquet(path)
    return path


def test_the_counts_come_back_where_they_were(tmp_path):
    write_chunk(tmp_path / "train", (100, 104), (7, 9), COUNTS)
    write_chunk(tmp_path / "test", (104, 106), (8, 10), np.ones((2, 2), dtype=bool))
    recording = read_source("chunks", "s", tmp_path, {"bin_size": 10, "region": "MOp"})
    assert list(recording.units["unit_id"]) == ["7", "8", "9"]
    assert set(recording.units["region"]) == {"MOp"}
    assert list(recording.trials["start"]) == [1.0, 1.04]
    assert list(recording.trials["folder"]) == ["train", "test"]
    np.testing.assert_allclose(recording.observed, [[1.0, 1.06]])
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    trains, begin = Trains.open(tmp_path / "trains"), np.array([100_000])
    expected = np.zeros((6, 3), dtype=int)
    expected[:4, :2], expected[4:, 1:] = COUNTS.T, 1
    np.testing.assert_array_equal(bin_windows(trains, begin, 6, 1000)[0], expected)
    # Ten bins of 1 ms in each of the file's: nothing moves to a neighbour.
    fine = bin_windows(trains, begin, 60, 100)[0]
    np.testing.assert_array_equal(fine.reshape(6, 10, 3).sum(axis=1), expected)
    seen = observed_windows(trains, begin, 6, 1000)[0]
    np.testing.assert_array_equal(seen[:, 0], [True] * 4 + [False] * 2)
    assert seen[:, 1].all()  # in both files, which touch
    assert observed_windows(trains, begin, 2, 3000)[0, :, 1].all(), "a bin over the place where two files touch"
    np.testing.assert_array_equal(seen[:, 2], [False] * 4 + [True] * 2)


def test_several_files_of_the_same_bins_are_one_trial(tmp_path):
    write_chunk(tmp_path, (0, 4), (0, 2), COUNTS)
    write_chunk(tmp_path, (0, 4), (5, 7), COUNTS)
    recording = read_source("chunks", "s", tmp_path)
    assert len(recording.trials) == 1
    assert list(recording.units["unit_id"]) == ["0", "1", "5", "6"]  # nobody saw 2, 3 and 4
    np.testing.assert_array_equal(np.bincount(recording.spike_units), [4, 2, 4, 2])


def test_what_cannot_be_chunks_is_refused(tmp_path):
    with refuses("absent", "no such folder"):
        read_source("chunks", "s", tmp_path / "absent")
    with refuses("no file *.parquet"):
        read_source("chunks", "s", tmp_path)
    path = write_chunk(tmp_path, (0, 4), (0, 2), COUNTS)
    write_chunk(tmp_path, (2, 6), (1, 3), COUNTS)
    with refuses("probe_2-6_1-3.parquet", "unit 1, bin 2", path.name):
        read_source("chunks", "s", tmp_path)
    for number, (table, found) in enumerate(
        [(COUNTS[:1], "shape (1, 4)"), (COUNTS / 2, "float64"), (-COUNTS, "int64")]
    ):
        folder = tmp_path / str(number)
        with refuses(write_chunk(folder, (0, 4), (0, 2), table).name, found):
            read_source("chunks", "s", folder)
    for name in ("table.parquet", "probe_4-4_0-2.parquet", "probe_0-4_2-0.parquet"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        path.rename(folder / name)
        path = folder / name
        with refuses(name, "name"):
            read_source("chunks", "s", folder)


@pytest.fixture(scope="module")
def chunks(shared_data):
    return shared_data / "ibl_f475ae14"


def test_real_chunks(chunks):
    recording = read_source("chunks", "f475ae14", chunks)
    files = sorted(chunks.rglob("*.parquet"))
    assert (len(recording.units), len(recording.trials)) == (235, len(files))
    assert len(recording.spike_times) == sum(int(pd.read_parquet(file).to_numpy().sum()) for file in files)
    rates = np.bincount(recording.spike_units).sum() / (128 * 0.8 * len(files))
    assert 5.5 < rates < 6.5


def test_the_published_split_of_the_real_chunks(chunks, tmp_path):
    content = yaml.safe_load(Path("config/runs/ibl_chunks.yaml").read_text())
    cohort = resolve(content | {"data": str(chunks.parent)}).cohorts["f475ae14"]
    recording = read_source("chunks", "f475ae14", chunks)
    recording.write(tmp_path / "recording")
    convert(tmp_path / "recording", tmp_path / "trains")
    trains = Trains.open(tmp_path / "trains")
    samples = make_split([trains], cohort.windows, cohort.splits, "f475ae14").samples
    folder = recording.trials["folder"].to_numpy()[samples["trial"]]
    np.testing.assert_array_equal(samples["split"] == "test", folder == "test")
    assert samples["split"].value_counts().to_dict() == {"train": 19, "test": 6, "validation": 5}
    train = samples[samples["split"] == "train"]["start_tick"].to_numpy()
    assert observed_windows(trains, train, 160, 500).any(axis=(0, 1)).all()
