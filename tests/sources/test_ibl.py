"""The IBL reader on the folder our writer makes (which ONE opens), varied as real sessions vary."""

import shutil

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.sources import read_source
from pipeline_lib.sources.ibl import preferred
from pipeline_lib.sources.simulate.layouts import write_layout
from tests.sources.conftest import refuses

SORTING = "alf/probe00/pykilosort"


@pytest.fixture
def cached(recording, tmp_path):
    """The session folder below ONE's cache tables."""
    return write_layout(recording, tmp_path / "cache", "ibl")


@pytest.fixture
def session(cached, tmp_path):
    """The session folder alone, free to change."""
    return shutil.copytree(cached, tmp_path / "alone")


def change(session, name, edit):
    """Rewrite a dataset of the sorting (or of alf, with its path)."""
    path = session / (name if name.startswith("alf/") else f"{SORTING}/{name}")
    if path.suffix == ".npy":
        np.save(path, edit(np.load(path)))
    else:
        edit(pd.read_parquet(path)).to_parquet(path)
    return path


def test_good_units_only_by_default(session):
    change(session, "clusters.metrics.pqt", lambda table: table.assign(label=[1, 2 / 3, 1, 1, 0, 1]).drop(index=[3]))
    assert list(read_source("ibl", "s", session).units["unit_id"]) == ["11", "7", "100"]
    assert len(read_source("ibl", "s", session, {"min_label": 0.5}).units) == 4
    everything = read_source("ibl", "s", session, {"min_label": None})
    assert len(everything.units) == 6
    assert everything.units["label"].isna().tolist() == [False, False, False, True, False, False]
    (session / SORTING / "clusters.metrics.pqt").unlink()
    assert len(read_source("ibl", "s", session, {"min_label": None}).units) == 6
    with refuses("clusters.metrics.pqt", "no such dataset", "min_label: null"):
        read_source("ibl", "s", session)


def test_regions_in_three_parcellations(session):
    # Layer 4 of primary visual cortex on the right, CA1 on the left (negative ids), fibre tracts; outside; root.
    ids = np.array([721, -382, 1009, 0, 997, 385])
    change(session, "channels.brainLocationIds_ccf_2017.npy", lambda _: ids)

    def regions(mapping):
        return list(read_source("ibl", "s", session, {"atlas_mapping": mapping}).units["region"])

    assert regions("Allen")[:2] == ["VISp4", "CA1"]
    assert regions("Allen")[3:] == ["void", "root", "VISp"]
    assert regions("Beryl")[:2] == ["VISp", "CA1"]
    assert regions("Cosmos")[:2] == ["Isocortex", "HPF"]
    path = change(session, "channels.brainLocationIds_ccf_2017.npy", lambda _: ids + 10**9)
    with refuses(path.name, "location ids", "Allen CCF 2017"):
        read_source("ibl", "s", session)
    path.unlink()
    assert set(read_source("ibl", "s", session).units["region"]) == {"unknown"}


def test_conditions_of_the_task_and_reaction_times(session):
    def task(table):
        left, right = [1.0, np.nan, 0.0, np.nan, 0.0625], [np.nan, 0.25, np.nan, np.nan, np.nan]
        shown = table["intervals_0"] + 0.125
        moved = shown + np.array([0.25, 0.05, np.nan, 2.5, 0.08])
        choice = [1.0, -1.0, 0.0, np.nan, 1.0]
        table = table.assign(contrastLeft=left, contrastRight=right, choice=choice)
        table = table.assign(stimOn_times=shown, firstMovement_times=moved)
        return table.drop(columns="condition")

    change(session, "alf/_ibl_trials.table.pqt", task)
    recording = read_source("ibl", "s", session)
    assert list(recording.trials["condition"]) == [
        "left 100% chose left",
        "right 25% chose right",
        "left 0% no choice",
        "no 0% no choice",
        "left 6.25% chose left",
    ]
    quick = read_source("ibl", "s", session, {"reaction_time": [0.079, 2.0]})
    assert list(quick.trials["start"]) == [0.0, 4.0]
    assert list(quick.trials["contrastLeft"]) == [1.0, 0.0625]  # of the same trials
    assert list(quick.trials["condition"]) == ["left 100% chose left", "left 6.25% chose left"]
    assert (quick.provenance.counts["trials_reaction_time"], quick.provenance.counts["trials_before"]) == (3, 5)
    bounds = read_source("ibl", "s", session, {"reaction_time": [0.25, 2.5]})
    assert list(bounds.trials["start"]) == [0.0, 3.0]  # the bounds themselves pass
    by_side = read_source("ibl", "s", session, {"condition": ["choice"]})
    assert list(by_side.trials["condition"]) == ["1", "-1", "0", "none", "1"]


def test_trials_of_a_session_of_several_tasks(session):
    """Their folders hold trials and wheel; they would be missing, and nobody told."""
    known = read_source("ibl", "s", session)
    for name in ("_ibl_trials.table.pqt", "_ibl_wheel.position.npy", "_ibl_wheel.timestamps.npy"):
        folder = session / "alf/task_01"
        folder.mkdir(exist_ok=True)
        if not (session / "alf" / name).exists():  # the wheel
            np.save(session / "alf" / name, np.linspace(0.0, 1.0, 11))
        (session / "alf" / name).rename(folder / name)
    found = read_source("ibl", "s", session)
    pd.testing.assert_frame_equal(found.trials, known.trials)
    assert found.signals["wheel"]["time"].iloc[-1] == 1.0
    (session / "alf/task_00").mkdir()
    np.save(session / "alf/task_00/_ibl_trials.intervals.npy", np.zeros((1, 2)))
    with refuses("trials", "alf/task_00, alf/task_01", "one task"):
        read_source("ibl", "s", session)
    shutil.copy(session / "alf/task_01/_ibl_trials.table.pqt", session / "alf")
    pd.testing.assert_frame_equal(read_source("ibl", "s", session).trials, known.trials)


def test_trials_of_older_sessions_are_arrays(session):
    table = pd.read_parquet(session / "alf/_ibl_trials.table.pqt")
    known = read_source("ibl", "s", session).trials
    (session / "alf/_ibl_trials.table.pqt").unlink()
    numbers = [name for name in ("goCue_times", "go_cue", "stimOn_times", "feedback_times") if name in table]
    task = {"contrastLeft": [0.25, np.nan, np.nan, 0, 1], "contrastRight": [np.nan, 1, 0.5, np.nan, np.nan]}
    arrays = task | {"choice": [1, -1, 0, 1, -1]} | {name: table[name] for name in numbers}
    arrays |= {"intervals": table[["intervals_0", "intervals_1"]], "intervals_bpod": np.zeros((len(table), 2))}
    for name, values in arrays.items():
        np.save(session / f"alf/_ibl_trials.{name}.npy", np.array(values))
    found = read_source("ibl", "s", session).trials
    pd.testing.assert_frame_equal(found[["start", "stop", *numbers]], known[["start", "stop", *numbers]])
    assert numbers
    assert set(found) == {"start", "stop", "condition", "contrastLeft", "contrastRight", "choice", *numbers}
    assert found["condition"].tolist()[:2] == ["left 25% chose left", "right 100% chose right"]
    np.save(session / "alf/_ibl_trials.choice.npy", np.zeros(4))
    with refuses("_ibl_trials.choice.npy", "4 rows", "5 rows"):
        read_source("ibl", "s", session)
    for shape in ((5,), (5, 3)):
        np.save(session / "alf/_ibl_trials.intervals.npy", np.zeros(shape))
        with refuses("_ibl_trials.intervals.npy", f"shape {shape}"):
            read_source("ibl", "s", session)


def test_a_wheel_that_did_not_turn(session):
    for name, value in {"position": 0.5, "timestamps": 1.002}.items():  # one sample, between two of the grid
        np.save(session / f"alf/_ibl_wheel.{name}.npy", np.array([value]))
    assert "wheel" not in read_source("ibl", "s", session).signals


def test_probes_are_merged_and_chosen(recording, session):
    shutil.rmtree(session / "truth.zarr")
    second = session / "alf/probe01/iblsorter"
    shutil.copytree(session / SORTING, second)
    np.save(second / "spikes.times.npy", np.load(second / "spikes.times.npy") + 0.001)
    (second / "clusters.uuids.csv").unlink()
    both = read_source("ibl", "s", session)
    assert len(both.units) == 12
    assert list(both.units["unit_id"][6:]) == [f"probe01_{row}" for row in range(6)]
    assert (np.diff(both.spike_times) >= 0).all()
    for row in range(6):
        own = recording.spike_times[recording.spike_units == row]
        np.testing.assert_array_equal(both.spike_times[both.spike_units == row], own)
        np.testing.assert_array_equal(both.spike_times[both.spike_units == row + 6], own + 0.001)
    one = read_source("ibl", "s", session, {"probes": "probe01", "population": "probe"})
    assert set(one.units["population"]) == {"probe01"}
    with refuses("option probes", "'probe02'", "probe00, probe01"):
        read_source("ibl", "s", session, {"probes": ["probe02"]})
    with refuses("option sorter", "'kilosort'", "pykilosort"):
        read_source("ibl", "s", session, {"sorter": "kilosort"})


def test_the_newest_revision_counts_unless_asked(recording, session):
    for revision, shift in (("2023-01-01", 0.5), ("2024-05-06", 1.0)):
        folder = session / SORTING / f"#{revision}#"
        folder.mkdir()
        np.save(folder / "spikes.times.npy", recording.spike_times + shift)

    def first(**options):
        return read_source("ibl", "s", session, options).spike_times[0] - recording.spike_times[0]

    assert first() == pytest.approx(1.0)
    assert first(revision="2024-05-05") == pytest.approx(0.5)
    assert first(revision="2024-05-06") == pytest.approx(1.0)
    assert first(revision="2020-01-01") == 0
    assert read_source("ibl", "s", session).provenance.release == "2024-05-06"
    used = read_source("ibl", "s", session).provenance.files
    assert f"{SORTING}/#2024-05-06#/spikes.times.npy" in used
    assert f"{SORTING}/spikes.times.npy" not in used


def test_passing_spikes_alone(recording, session):
    folder = session / SORTING
    good = recording.spike_units % 2 == 0
    table = pd.DataFrame({"times": recording.spike_times[good], "clusters": recording.spike_units[good].astype("u2")})
    table.to_parquet(folder / "passingSpikes.table.pqt")
    for name in ("times", "clusters", "amps", "depths"):
        (folder / f"spikes.{name}.npy").unlink()
    change(session, "clusters.metrics.pqt", lambda table: table.assign(label=[1.0, 0.5] * 3))
    found = read_source("ibl", "s", session)
    assert list(found.units["unit_id"]) == ["11", "7", "8"]
    np.testing.assert_array_equal(found.spike_times, recording.spike_times[good])
    with refuses("option min_label", "good units alone"):
        read_source("ibl", "s", session, {"min_label": 0.5})


def test_a_cluster_lies_where_its_channel_does(session):
    """The tracing may lie beside the sorting or with the probe; the metrics' own region is not the atlas's."""
    name = "channels.brainLocationIds_ccf_2017.npy"
    change(session, name, lambda _: np.array([385, 382, 385, 382, 382, 382]))
    change(session, "clusters.channels.npy", lambda channels: channels[::-1])
    change(session, "clusters.metrics.pqt", lambda table: table.assign(region="here"))
    change(session, "clusters.depths.npy", lambda depths: depths[[4, 0, 5, 2, 1, 3]])
    (session / SORTING / name).rename(session / SORTING / ".." / name)
    units = read_source("ibl", "s", session).units
    assert list(units["region"]) == ["CA1", "CA1", "CA1", "VISp", "CA1", "VISp"]
    assert list(units["depth"]) == [80, 0, 100, 40, 20, 60]
    assert units.columns.is_unique


def test_the_session_ends_with_its_last_trial(recording, session):
    assert recording.spike_times.max() < 4.8
    assert read_source("ibl", "s", session).duration == 4.8


def test_which_sorting_is_taken_where_there_are_several():
    several = {"": "alf/probe00", "pykilosort": "alf/probe00/pykilosort", "iblsorter": "alf/probe00/iblsorter"}
    assert preferred(several, None) == "alf/probe00/iblsorter"
    assert preferred(several, "pykilosort") == "alf/probe00/pykilosort"
    assert preferred({"": "here", "pykilosort": "there"}, None) == "there"
    assert preferred({"ks2_preprocessed": "long", "ks2": "short"}, None) == "short"
    assert preferred({"ks2": "short"}, "iblsorter") is None and preferred({}, None) is None


def test_wheel(session):
    time = np.array([0.0, 1.0, 1.0, 2.0, 4.0])
    np.save(session / "alf/_ibl_wheel.position.npy", np.array([0.0, 1.0, 1.0, 3.0, 3.0])[:, None])
    np.save(session / "alf/_ibl_wheel.timestamps.npy", time)
    wheel = read_source("ibl", "s", session, {"wheel_rate": 10}).signals["wheel"]
    np.testing.assert_allclose(wheel["time"], np.arange(41) / 10)
    np.testing.assert_allclose(wheel["position"][[5, 15, 35]], [0.5, 2.0, 3.0])
    np.testing.assert_allclose(wheel["velocity"][[5, 15, 35]], [1.0, 2.0, 0.0], atol=1e-9)
    np.save(session / "alf/_ibl_wheel.timestamps.npy", np.array([[0, 0.0], [4, 8.0]]))  # sample and time
    recording = read_source("ibl", "s", session, {"wheel_rate": 1})
    np.testing.assert_allclose(recording.signals["wheel"]["position"], [0, 0.5, 1, 1, 1, 2, 3, 3, 3])
    assert recording.duration == 8  # the session ends with the wheel, after the last spike
    np.save(session / "alf/_ibl_wheel.timestamps.npy", np.array([[0, 0.0], [2, 2.0], [4, 8.0]]))  # a clock that slowed
    wheel = read_source("ibl", "s", session, {"wheel_rate": 1}).signals["wheel"]
    np.testing.assert_allclose(wheel["position"], [0, 1, 1, 5 / 3, 7 / 3, 3, 3, 3, 3])
    assert not read_source("ibl", "s", session, {"wheel_rate": None}).signals


def test_spikes_before_the_clock_are_counted(session):
    change(session, "spikes.times.npy", lambda times: np.r_[-0.2, 0.0, times[2:]])
    found = read_source("ibl", "s", session)
    assert found.spike_times[0] == 0.0
    assert found.provenance.counts["spikes_before_clock"] == 1
    assert found.provenance.counts["spikes_after"] == 199


def test_nothing_is_written_and_no_question_asked(cached, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    root = cached.parents[4]
    before = {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}
    read_source("ibl", "s", cached)
    assert {path: path.stat().st_mtime_ns for path in sorted(root.rglob("*"))} == before
    assert not list(home.rglob("*"))


def test_a_file_of_another_size_than_the_cache_tables_say(cached):
    path, listing = cached / SORTING / "spikes.times.npy", cached.parents[4] / "datasets.pqt"
    times = np.load(path)
    for other in (times[:-1], np.append(times, times[-1])):
        np.save(path, other)
        with refuses("spikes.times.npy", "bytes", "datasets.pqt"):
            read_source("ibl", "s", cached)
    np.save(path, times[:, None])  # a column, whose header is as long
    assert len(read_source("ibl", "s", cached).spike_times) == len(times)
    table = pd.read_parquet(listing)
    table.assign(file_size=pd.array([None] * len(table), "Int64")).to_parquet(listing)
    assert len(read_source("ibl", "s", cached).spike_times) == len(times), "sizes that nobody knows"
    listing.write_bytes(b"PAR1")
    with refuses("datasets.pqt", "cache tables"):
        read_source("ibl", "s", cached)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("spikes.times.npy", lambda x: x[:-1], ("clusters", "(200,)", "(199,)")),
        ("spikes.times.npy", lambda x: np.r_[np.nan, x[1:]], ("times, row 0", "finite")),
        ("spikes.times.npy", lambda x: x.astype(str), ("<U", "numbers")),
        ("spikes.clusters.npy", lambda x: x + 1, ("clusters, row", "found 6", "0 to 5")),
        ("spikes.clusters.npy", lambda x: x.astype(int) - 1, ("clusters, row", "found -1", "0 to 5")),
        ("clusters.channels.npy", lambda x: x + 1, ("row 5", "found 6", "channels 0 to 5")),
        ("clusters.depths.npy", lambda x: x[:3], ("3 rows", "6 rows")),
        ("clusters.metrics.pqt", lambda x: x.drop(columns="label"), ("column label", "cluster_id")),
        ("alf/_ibl_trials.table.pqt", lambda x: x.drop(columns="intervals_1"), ("column intervals_1",)),
        ("alf/_ibl_trials.table.pqt", lambda x: x.assign(intervals_1=-1.0), ("trials.stop, row 0",)),
    ],
)
def test_damage_names_file_and_field(session, name, edit, words):
    path = change(session, name, edit)
    with refuses(words[0]) as caught:
        read_source("ibl", "s", session)
    assert all(word in caught.text for word in words), caught.text
    assert path.name in caught.text or str(session) in caught.text


@pytest.mark.parametrize("name", ["spikes.times.npy", "spikes.clusters.npy", "clusters.metrics.pqt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_file(session, name, share):
    path = session / SORTING / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with refuses(str(path)):
        read_source("ibl", "s", session)


@pytest.mark.parametrize(("text", "words"), [("a\nb", "2 ids, 0 empty"), ('a\nb\n""\nd\ne\nf', "6 ids, 1 empty")])
def test_ids_are_one_a_cluster(session, text, words):
    (session / SORTING / "clusters.uuids.csv").write_text(f"uuids\n{text}\n")
    with refuses("clusters.uuids.csv", words, "one a cluster"):
        read_source("ibl", "s", session)


@pytest.mark.parametrize("name", ["spikes.clusters.npy", "clusters.channels.npy"])
def test_a_missing_dataset_is_named(session, name):
    (session / SORTING / name).unlink()
    with refuses(str(session), name):
        read_source("ibl", "s", session)


def test_the_location(session, cached, tmp_path):
    assert len(read_source("ibl", "s", cached.parents[4]).units) == 6
    with refuses("0 sessions", "subject/date/number"):
        read_source("ibl", "s", tmp_path / "nowhere")
    shutil.rmtree(session / "alf/probe00")
    with refuses("alf/probe*", "no spike sorting"):
        read_source("ibl", "s", session)


def test_a_pickle_is_never_loaded(session):
    np.save(session / SORTING / "spikes.times.npy", np.array([{"a": 1}] * 200, dtype=object), allow_pickle=True)
    with refuses("spikes.times.npy", "ValueError"):
        read_source("ibl", "s", session)
