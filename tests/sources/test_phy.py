"""A folder of Kilosort and phy, written here as they write it."""

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import read_source, session_files
from tests.sources.conftest import refuses

SAMPLES = np.array([3_000, 6_000, 7_500, 30_000, 45_000, 60_000], dtype=np.uint64)
CLUSTERS = np.array([12, 3, 12, 7, 3, 40], dtype=np.int32)


@pytest.fixture
def folder(tmp_path):
    """Clusters 3 and 12 good, 7 multi-unit, 40 without a label; trials of a behaviour table in seconds."""
    np.save(tmp_path / "spike_times.npy", SAMPLES[:, None])  # Kilosort writes a column
    np.save(tmp_path / "spike_clusters.npy", CLUSTERS)
    # A program of somebody else: running it would fail, and it is not run. MATLAB writes paths that are no Python.
    text = "dat_path = 'C:\\Users\\lab\\day1.bin'\nraise SystemExit\nsample_rate = 30000.\nhp_filtered = True\n"
    (tmp_path / "params.py").write_text(text)
    write(tmp_path, "group", {3: "good", 7: "mua", 12: "good", 99: "noise"})
    trials = {"stim_on": [0.05, 1.0], "off": [0.6, 1.9], "choice": ["left", "right"], "response": [0.3, np.nan]}
    pd.DataFrame(trials).to_csv(tmp_path / "trials.csv", index=False)
    return tmp_path


def write(folder, name, values, column=None, key="cluster_id"):
    table = pd.DataFrame({key: list(values), column or name: list(values.values())})
    table.to_csv(folder / f"cluster_{name}.tsv", sep="\t", index=False)


TRIALS = {"trials": "trials.csv", "start": "stim_on", "stop": "off", "condition": "choice"}


def test_good_clusters_are_units_and_samples_are_seconds(folder):
    recording = read_source("phy", "day1", folder, TRIALS)
    assert list(recording.units["unit_id"]) == ["3", "12"]
    np.testing.assert_allclose(recording.spike_times, [0.1, 0.2, 0.25, 1.5])
    assert list(recording.spike_units) == [1, 0, 1, 0]
    assert set(recording.units["region"]) == {"unknown"}
    assert set(recording.units["population"]) == {"all"}
    # Trials are in seconds, though spikes are in samples.
    assert recording.trials[["start", "stop"]].to_numpy().tolist() == [[0.05, 0.6], [1.0, 1.9]]
    assert list(recording.trials["condition"]) == ["left", "right"]
    assert recording.duration == 2.0  # the last spike of all clusters, kept or not
    counts = recording.provenance.counts
    assert (counts["units_before"], counts["units_after"], counts["spikes_before"]) == (4, 2, 6)
    assert recording.provenance.source == "phy"
    assert {"params.py", "spike_times.npy", "trials.csv"} < set(recording.provenance.files)


def test_the_same_as_tables_of_the_same_spikes(folder, tmp_path):
    np.savez(tmp_path / "spikes.npz", time=SAMPLES / 30_000, unit=CLUSTERS)
    tables = read_source("tables", "day1", tmp_path / "spikes.npz", TRIALS)
    every = read_source("phy", "day1", folder, TRIALS | {"groups": ["good", "mua", "unsorted"]})
    np.testing.assert_array_equal(every.spike_times, tables.spike_times)
    np.testing.assert_array_equal(every.spike_units, tables.spike_units)
    pd.testing.assert_frame_equal(every.trials, tables.trials)
    assert list(every.units["unit_id"]) == list(tables.units["unit_id"])


@pytest.mark.parametrize(
    ("groups", "expected"), [("mua", ["7"]), ("unsorted", ["40"]), (["good", "unsorted"], ["3", "12", "40"])]
)
def test_groups_choose(folder, groups, expected):
    assert list(read_source("phy", "s", folder, {"groups": groups}).units["unit_id"]) == expected


def test_the_word_of_a_person_goes_before_that_of_kilosort(folder):
    write(folder, "KSLabel", {3: "mua", 7: "good", 12: "good", 40: "good"})
    assert list(read_source("phy", "s", folder).units["unit_id"]) == ["3", "12", "40"]
    (folder / "cluster_group.tsv").unlink()  # never opened in phy
    assert list(read_source("phy", "s", folder).units["unit_id"]) == ["7", "12", "40"]


@pytest.mark.parametrize("key", ["id", "cluster_id"])
def test_columns_of_clusters_can_choose_units(folder, key):
    write(folder, "info", {3: 100.0, 12: 900.0, 7: 5.0}, column="depth", key=key)
    write(folder, "ContamPct", {3: 1.5, 12: 30.0})
    write(folder, "region", {3: "VISp", 7: "CA1"})
    recording = read_source("phy", "s", folder, {"groups": ["good", "mua"]})
    assert list(recording.units["region"]) == list(recording.units["population"]) == ["VISp", "CA1", "unknown"]
    recording = read_source("phy", "s", folder, {"groups": ["good", "mua"], "region": "elsewhere"})
    assert list(recording.units["region"]) == list(recording.units["population"]) == ["VISp", "CA1", "elsewhere"]
    assert list(recording.units["depth"]) == [100.0, 5.0, 900.0]
    chosen = read_source("phy", "s", folder, {"query": {"ContamPct": "<10"}, "regions": "VISp"})
    assert list(chosen.units["unit_id"]) == ["3"]


def test_a_space_after_a_label_loses_no_unit(folder):
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\r\n3\tgood \r\n7\tmua\r\n12\tgood\r\n")
    assert list(read_source("phy", "s", folder).units["unit_id"]) == ["3", "12"]


def test_a_region_for_all(folder):
    units = read_source("phy", "s", folder, {"region": "MOs"}).units
    assert set(units["region"]) == set(units["population"]) == {"MOs"}


def test_the_summary_fills_what_its_parts_leave_open(folder):
    write(folder, "info", {3: "noise", 40: "good"}, column="group")  # a summary older than the label of 3
    assert list(read_source("phy", "s", folder).units["unit_id"]) == ["3", "12", "40"]


def test_spikes_out_of_order_are_sorted(folder):
    order = np.array([4, 0, 2, 5, 1, 3])
    before = read_source("phy", "s", folder)
    np.save(folder / "spike_times.npy", SAMPLES[order].astype(np.int64))
    np.save(folder / "spike_clusters.npy", CLUSTERS[order].astype(np.uint32)[:, None])
    after = read_source("phy", "s", folder)
    np.testing.assert_array_equal(after.spike_times, before.spike_times)
    np.testing.assert_array_equal(after.spike_units, before.spike_units)


def test_behaviour_beside(folder):
    (folder / "wheel.csv").write_text("time,speed\n0,1\n1,2\n2,3\n")
    (folder / "observed.csv").write_text("start,stop\n0,1.2\n1.4,5\n")
    recording = read_source("phy", "s", folder, {"signals": {"wheel": "wheel.csv"}, "observed": "observed.csv"})
    assert recording.signals["wheel"]["speed"].tolist() == [1, 2, 3]
    assert recording.observed.tolist() == [[0, 1.2], [1.4, 5]]
    assert recording.duration == 5
    (folder / "trials.csv").write_text("start,stop\n0,7\n")
    assert read_source("phy", "s", folder, {"trials": "trials.csv"}).duration == 7


def test_a_changed_label_is_another_session(folder):
    names = {file.name for file in session_files("phy", folder, TRIALS)}
    files = {"spike_times.npy", "spike_clusters.npy", "params.py", "trials.csv", "cluster_group.tsv"}
    assert names == files


def test_the_sampling_rate_of_an_option(folder):
    (folder / "params.py").unlink()
    with refuses("params.py", "no such file", "sampling_rate"):
        read_source("phy", "s", folder)
    np.testing.assert_allclose(
        read_source("phy", "s", folder, {"sampling_rate": 20_000}).spike_times, np.array([3, 6, 7.5, 45]) / 20
    )


@pytest.mark.parametrize(
    "text", ["sample_rate = 30_000.", "sample_rate=3e4  # Hz", "# sample_rate = 1\nsample_rate = 30000"]
)
def test_a_number_as_python_writes_it(folder, text):
    (folder / "params.py").write_text(text)
    np.testing.assert_allclose(read_source("phy", "s", folder).spike_times, [0.1, 0.2, 0.25, 1.5])


NO_RATE = ["", "sample_rate = 0", "sample_rate = rate", "# sample_rate = 30000", "sample_rate = inf"]


@pytest.mark.parametrize("text", [*NO_RATE, "sample_rate = 30*1000", "sample_rate = 30000\nsample_rate = 25000"])
def test_a_sampling_rate_that_is_none(folder, text):
    (folder / "params.py").write_text(text)
    with refuses("params.py", "sample_rate"):
        read_source("phy", "s", folder)


def test_what_is_refused(folder):
    with refuses("option groups", "excellent", "2 good", "1 mua", "1 unsorted"):
        read_source("phy", "s", folder, {"groups": "excellent"})
    with refuses("trial.csv", "option trials", "no such file"):
        read_source("phy", "s", folder, {"trials": "trial.csv"})
    with refuses(str(folder / "nowhere"), "spike_times.npy"):
        read_source("phy", "s", folder / "nowhere")
    pd.DataFrame({"start": [50.0, 4e7], "stop": [600.0, 6e7]}).to_csv(folder / "samples.csv", index=False)
    with refuses("samples.csv", "column stop", "seconds from the start"):
        read_source("phy", "s", folder, {"trials": "samples.csv"})
    with refuses("samples.csv", "column stop", "seconds from the start"):
        read_source("phy", "s", folder, {"observed": "samples.csv"})
    write(folder, "twice", {3: 1})
    (folder / "cluster_twice.tsv").write_text("cluster_id\ttwice\n3\t1\n3\t2\n")
    with refuses("cluster_twice.tsv", "3 twice"):
        read_source("phy", "s", folder)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("spike_clusters.npy", CLUSTERS[:4], ("4 values, 6 times",)),
        ("spike_clusters.npy", CLUSTERS.astype(float), ("float64", "whole number")),
        ("spike_times.npy", np.stack([SAMPLES, SAMPLES], 1), ("(6, 2)",)),
        ("spike_times.npy", np.float64(3), ("shape ()",)),
        ("spike_times.npy", np.full(6, np.nan), ("finite",)),
        ("spike_times.npy", SAMPLES.astype(np.int64) - 5_000, ("row 0", "from 0 s")),
        ("spike_times.npy", SAMPLES / 30_000, ("row 0", "0.1", "of samples and not seconds")),
        ("spike_times.npy", np.array([None] * 6), ("allow_pickle",)),
    ],
)
def test_arrays_that_are_no_spikes(folder, name, array, words):
    np.save(folder / name, array)
    with refuses(name, *words):
        read_source("phy", "s", folder)


def test_a_folder_without_spikes(folder):
    for name in ("spike_times.npy", "spike_clusters.npy"):
        np.save(folder / name, np.empty(0, np.int64))
    with refuses("empty recording"):
        read_source("phy", "s", folder)
