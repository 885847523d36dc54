"""What a job asks of a cluster, worked out by hand from sizes of recordings."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.resources import megabytes, megabytes_to_record, minutes, rows, size


def _manifest(folder: Path, units: int, seconds: int, spikes: int) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"units": units, "duration_ticks": seconds * 100_000, "spikes": spikes}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder / "manifest.json"


def test_memory_and_time_by_bins_and_spikes(tmp_path: Path) -> None:
    """Two sessions at 5 ms: 500 units for 2000 s are 0.2 thousand million bins, and 100 for 10,000 s as many."""
    sessions = [_manifest(tmp_path / "a", 500, 2000, 10**7), _manifest(tmp_path / "b", 100, 10_000, 5 * 10**6)]
    spikes = 20 * 15  # megabytes
    assert megabytes("fit", sessions, 5.0) == 2000 + 8 * 400 + spikes
    assert megabytes("evaluate", sessions, 5.0) == 2000 + 16 * 400 + spikes
    assert megabytes("fit", sessions, 10.0) == 2000 + 8 * 200 + spikes
    assert minutes("fit", sessions, 5.0) == 30 + 96 and minutes("evaluate", sessions, 5.0) == 30 + 24
    for asked in (megabytes, minutes):
        assert asked("fit", sessions, 5.0, attempt=3) == 3 * asked("fit", sessions, 5.0)


def test_a_recording_asks_by_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe/times.npy").write_bytes(bytes(2000))
    (tmp_path / "trials.csv").write_bytes(bytes(500))
    assert size(tmp_path) == 2500 and size(tmp_path / "trials.csv") == 500 and size(tmp_path / "none") == 0
    assert megabytes_to_record(0) == 2000 and megabytes_to_record(3 * 10**9, attempt=2) == 2 * (2000 + 4 * 3000)


def test_rows_of_parquet_count_which_may_be_small_on_disk(tmp_path: Path) -> None:
    (tmp_path / "trials.csv").write_text("start\n1\n")
    (tmp_path / "broken.parquet").write_text("PAR1")
    pd.DataFrame({"time": np.zeros(700)}).to_parquet(tmp_path / "SPIKES.PARQUET")
    assert rows([*tmp_path.iterdir(), tmp_path / "none.pqt"]) == 700 and rows([]) == 0
    assert megabytes_to_record(10**7, rows=10**8) == 2000 + 4 * 10 + 40 * 100


def test_a_store_is_given_as_itself_or_its_folder_and_read_anew_when_it_changes(tmp_path: Path) -> None:
    file = _manifest(tmp_path / "a", 500, 2000, 10**7)
    before = megabytes("fit", [file], 5.0)
    assert megabytes("fit", [str(tmp_path / "a")], 5.0) == before
    _manifest(tmp_path / "a", 1000, 2000, 10**7)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert megabytes("fit", [file], 5.0) == before + 8 * 200


@pytest.mark.parametrize("spelt", ["{}/none", "{}/none/manifest.json"])
def test_what_is_not_converted_yet_is_missing_as_it_was_spelt(tmp_path: Path, spelt: str) -> None:
    """Snakemake looks the name up among the inputs of the job, and asks again when it is there."""
    with pytest.raises(FileNotFoundError) as caught:
        minutes("fit", [spelt.format(tmp_path)], 5.0)
    assert caught.value.filename == spelt.format(tmp_path)
