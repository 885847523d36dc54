"""Parts that keep to their shares, never see each other, and are the same for everybody."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import PARTS, Split, _deal, _heldout_units, make_split
from pipeline_lib.trains.store import Trains

from .conftest import make_recording

TRIALS = WindowSettings(after=0.5)
CONTINUOUS = WindowSettings(mode="continuous", before=0.1, length=0.5, history=0.2)  # of trials alone: before


def _session(trials: pd.DataFrame, units: int = 4, duration: float = 1000.0) -> Trains:
    frame = pd.DataFrame({"unit_id": [str(u) for u in range(units)], "region": "", "population": "a"})
    observed = np.array([[0, int(duration * 1e5)]])
    tables = {"units": frame, "trials": trials}
    ticks, unit = np.array([0], np.int32), np.array([0], np.uint16)
    return Trains("made", ticks, unit, units, int(duration * 1e5), observed, None, tables)


def _trials(conditions: list[str], period: float = 2.0) -> pd.DataFrame:
    start = np.arange(len(conditions)) * period + 1
    return pd.DataFrame({"start": start, "stop": start + 1, "condition": conditions})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WindowSettings(mode="trial"), "windows.mode: found 'trial'; accepted: did you mean 'trials'?"),
        (lambda: SplitSettings(scheme="block"), "splits.scheme: found 'block'; accepted: did you mean 'blocks'?"),
        (lambda: SplitSettings(heldout_units=["u1"]), r"splits.heldout_units: found \['u1'\]; accepted: .*the column"),
        (lambda: SplitSettings(fractions=(0.8, 0.2)), r"splits.fractions: found \[0.8, 0.2\]; accepted: train, valid"),
    ],
)
def test_settings_made_in_python_are_refused_where_they_are_made(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_trials_are_split_by_condition():
    conditions = ["a"] * 200 + ["b"] * 100 + ["c"] * 50
    split = make_split([_session(_trials(conditions))], TRIALS, SplitSettings(), "c")
    table = split.samples.groupby(["condition", "split"]).size().unstack()
    for condition, count in (("a", 200), ("b", 100), ("c", 50)):
        for part, share in zip(PARTS, (0.7, 0.1, 0.2), strict=True):
            assert abs(table.loc[condition, part] - share * count) <= 2
    assert split.samples["split"].value_counts().to_dict() == {"train": 245, "test": 70, "validation": 35}


def test_a_smaller_share_trains_on_some_of_the_windows_of_a_larger_one_and_is_scored_on_the_same():
    session = _session(_trials(["a"] * 60 + ["b"] * 40))

    def starts(share: float, part: str, seed: int = 0) -> set[int]:
        samples = make_split([session], TRIALS, SplitSettings(train_share=share, seed=seed), "c").samples
        return set(samples.loc[samples["split"] == part, "start_tick"])

    whole, half, tenth = (starts(share, "train") for share in (1.0, 0.5, 0.1))
    assert tenth < half < whole and (len(whole), len(half), len(tenth)) == (70, 35, 7)
    assert tenth != set(sorted(whole)[:7])  # drawn, not the first ones
    assert len(starts(29 / 70, "train")) == 29  # 29 / 70 * 70 is a little more than 29
    for part in ("validation", "test"):
        assert starts(1.0, part) == starts(0.1, part)
    assert len(starts(1e-6, "train")) == 1

    def places(seed: int) -> list[int]:
        every = sorted(starts(1.0, "train", seed))
        return [every.index(start) for start in sorted(starts(0.1, "train", seed))]

    assert len({tuple(places(seed)) for seed in range(5)}) == 5  # other places among them, not only other windows
    for share in (0, -0.5, 1.5):
        with pytest.raises(InputError, match="train_share"):
            SplitSettings(train_share=share)


def test_a_condition_of_three_trials_has_one_in_each_part():
    settings = SplitSettings(fractions=(0.34, 0.33, 0.33))
    for seed in range(5):
        session = _session(_trials(["a", "b", "c"] * 3))
        samples = make_split([session], TRIALS, replace(settings, seed=seed), "c").samples
        assert samples.groupby("condition")["split"].nunique().tolist() == [3, 3, 3]


def test_tiny_conditions_are_pooled():
    """Forty conditions of two trials: none could be split by itself."""
    conditions = [f"c{number % 40}" for number in range(80)]
    settings = [SplitSettings(seed=seed) for seed in range(3)]
    several = [make_split([_session(_trials(conditions))], TRIALS, each, "c").part("made", "test") for each in settings]
    assert len({frozenset(test["condition"]) for test in several}) == 3, "which are tested hangs on the seed"
    split = make_split([_session(_trials(conditions))], TRIALS, SplitSettings(), "c")
    assert split.samples["split"].value_counts().to_dict() == {"train": 56, "test": 16, "validation": 8}


def test_three_trials_are_one_for_each_part():
    split = make_split([_session(_trials(["a"] * 3))], TRIALS, SplitSettings(), "c")
    assert sorted(split.samples["split"]) == sorted(PARTS)
    with pytest.raises(InputError, match="no trial in the split part"):
        make_split([_session(_trials(["a"] * 2))], TRIALS, SplitSettings(), "c")


@pytest.mark.parametrize("fractions", [(0.7, 0.1, 0.2), (0.7, 0.2, 0.1), (0.05, 0.05, 0.9), (0.8, 0.0, 0.2)])
@pytest.mark.parametrize("count", [3, 4, 7, 100, 1001])
def test_shares_of_any_number(count, fractions):
    sizes = np.bincount(_deal(count, np.array(fractions)), minlength=3)
    assert sizes.sum() == count
    assert ((sizes > 0) == (np.array(fractions) > 0)).all()
    assert (np.abs(sizes - count * np.array(fractions)) <= 2).all()


def test_every_stretch_of_a_deal_keeps_the_fractions():
    fractions = np.array([0.7, 0.1, 0.2])
    dealt = np.cumsum(np.eye(3)[_deal(1000, fractions)], axis=0)
    assert np.abs(dealt - np.arange(1, 1001)[:, None] * fractions).max() < 1


def test_same_seed_same_split_and_other_seed_another(trains):
    one, same = (make_split([trains], TRIALS, SplitSettings(heldout_units=5), "c") for _ in range(2))
    pd.testing.assert_frame_equal(one.samples, same.samples)
    np.testing.assert_array_equal(one.heldout["s1"], same.heldout["s1"])
    other = make_split([trains], TRIALS, SplitSettings(heldout_units=5, seed=1), "c")
    assert (one.samples["split"] != other.samples["split"]).any()
    assert one.heldout["s1"].tolist() != other.heldout["s1"].tolist()


def test_a_session_is_split_alike_in_every_cohort(trains):
    second = Trains.from_recording(make_recording("s2", seed=1))
    alone = make_split([trains], TRIALS, SplitSettings(heldout_units=0.2), "one")
    both = make_split([second, trains], TRIALS, SplitSettings(heldout_units=0.2), "two")
    own = both.samples[both.samples["session"] == "s1"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone.samples, own)
    np.testing.assert_array_equal(alone.heldout["s1"], both.heldout["s1"])
    assert both.samples.index.tolist() == list(range(len(both.samples)))  # the row is the id of the sample
    more_units = make_split([trains], TRIALS, SplitSettings(heldout_units=0.5), "one")
    pd.testing.assert_frame_equal(alone.samples, more_units.samples)


def test_two_sessions_with_the_same_trials_are_split_differently():
    one, other = _session(_trials(["a"] * 60)), _session(_trials(["a"] * 60))
    other.session = "another"
    split = make_split([one, other], TRIALS, SplitSettings(), "c")
    parts = [split.samples["split"][split.samples["session"] == name].tolist() for name in split.sessions]
    assert parts[0] != parts[1] and sorted(parts[0]) == sorted(parts[1])


def test_held_out_units_are_spread_over_populations(trains):
    for count in (5, 0.25, 10):
        rows = make_split([trains], TRIALS, SplitSettings(heldout_units=count), "c").heldout["s1"]
        number = count if count >= 1 else 5
        assert rows.tolist() == sorted(set(rows)) and len(rows) == number
        cortex = (trains.units["population"].to_numpy()[rows] == "cortex").sum()
        assert abs(cortex - number * 8 / 20) < 1
    assert make_split([trains], TRIALS, SplitSettings(), "c").heldout["s1"].tolist() == []
    assert len(make_split([trains], TRIALS, SplitSettings(heldout_units=0.02), "c").heldout["s1"]) == 1  # not none
    assert len(make_split([trains], TRIALS, SplitSettings(heldout_units=0.18), "c").heldout["s1"]) == 4  # of 3.6
    with pytest.raises(InputError, match="20 units"):
        make_split([trains], TRIALS, SplitSettings(heldout_units=20), "c")


def test_held_out_units_are_drawn(trains):
    """Every unit, neighbours together, too, and no population more often than it has units: 8 of 20 are cortex."""
    drawn = np.stack([_heldout_units(trains, SplitSettings(heldout_units=3, seed=seed)) for seed in range(100)])
    assert set(drawn.ravel()) == set(range(20))
    assert (np.diff(drawn, axis=1) == 1).any()
    cortex = trains.units["population"].to_numpy()[drawn] == "cortex"
    assert abs(cortex.mean() - 8 / 20) < 0.08
    everyone = replace(trains, tables={"units": trains.units.assign(out=True), "trials": trains.trials})
    with pytest.raises(InputError, match="out: found True for every unit"):
        make_split([everyone], TRIALS, SplitSettings(heldout_units="out"), "c")


def test_blocks_are_drawn_from_what_was_recorded():
    """Twenty blocks of ten windows and a pause of 950 s: no window is lost, and the pause takes no part's share."""
    session = _session(_trials([]), duration=1050.0)
    session.observed = np.array([[0, 50], [1000, 1050]]) * 100_000
    windows, drawn = replace(CONTINUOUS, history=0.0), set()
    for seed in range(4):
        samples = make_split([session], windows, SplitSettings(block=5.0, seed=seed), "c").samples
        assert samples["split"].value_counts().to_dict() == {"train": 140, "test": 40, "validation": 20}
        drawn.add(tuple(samples["split"]))
    assert len(drawn) == 4


@pytest.mark.parametrize("gap", [None, 0.2, 1.5])
def test_blocks_keep_their_distance(trains, gap):
    split = make_split([trains], CONTINUOUS, SplitSettings(block=3.1, gap=gap), "c")  # some windows are in two blocks
    samples = split.samples.sort_values("start_tick")
    assert samples["start_tick"].iloc[0] == 0  # nothing is before the first window
    assert (split.event, split.before) == ("", 0.0)
    begin, part = samples["start_tick"].to_numpy(), samples["split"].to_numpy()
    stop = begin + samples["bins"].to_numpy() * split.bin_ticks
    changes = part[1:] != part[:-1]
    assert changes.sum() >= 5
    assert ((begin[1:] - stop[:-1])[changes] >= (0.2 if gap is None else gap) * 1e5).all()
    assert (begin[1:] == stop[:-1])[~changes].mean() > 0.8  # nothing is lost inside a part


def test_a_gap_may_be_longer_than_a_block():
    """Windows of one part on either side of another part's block do not reach over it."""
    session = _session(_trials([]), duration=400.0)
    windows = replace(CONTINUOUS, history=0.0)
    samples = make_split([session], windows, SplitSettings(block=1.0, gap=1.5, fractions=(0.6, 0.2, 0.2)), "c").samples
    begin, part = samples["start_tick"].to_numpy() / 1e5, samples["split"].to_numpy()
    apart = begin[:, None] - (begin + 0.5)
    other = part[:, None] != part
    assert not (other & (apart > -0.5) & (apart < 1.5)).any() and (other & (apart > 1.4) & (apart < 1.6)).any()


def test_blocks_shorter_than_their_windows_keep_their_distance():
    """The gap before a window then lies in blocks that no window starts in."""
    windows, settings = replace(CONTINUOUS, history=0.0), SplitSettings(block=0.1, gap=0.3)
    samples = make_split([_session(_trials([]), duration=400.0)], windows, settings, "c").samples
    begin, part = samples["start_tick"].to_numpy() / 1e5, samples["split"].to_numpy()
    apart, changes = begin[1:] - (begin[:-1] + 0.5), part[1:] != part[:-1]
    assert changes.any() and (apart[changes] >= 0.3).all() and (apart[~changes] == 0).any()


def test_a_gap_shorter_than_the_history(trains):
    with pytest.raises(InputError, match="gap"):
        make_split([trains], CONTINUOUS, SplitSettings(gap=0.1), "c")


def test_too_short_a_session_for_its_blocks(trains):
    with pytest.raises(InputError, match="no window in the split part"):
        make_split([trains], CONTINUOUS, SplitSettings(block=60.0), "c")


def test_a_split_says_what_its_trials_are_aligned_to(trains):
    split = make_split([trains], WindowSettings(align="go", before=0.1, after=0.4), SplitSettings(), "c")
    assert (split.event, split.before) == ("go", 0.1)


def test_forward_bins(trains):
    assert make_split([trains], TRIALS, SplitSettings(forward=0.1), "c").forward_bins == 20
    with pytest.raises(InputError, match="forward"):
        make_split([trains], TRIALS, SplitSettings(forward=0.5), "c")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_users_own_trials(trains, suffix, tmp_path):
    table = pd.DataFrame({"trial": np.arange(30), "split": (["train"] * 4 + ["validation", "test"]) * 5})
    path = tmp_path / f"mine{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    split = make_split([trains], TRIALS, SplitSettings(scheme="file", file=str(path)), "c")
    got = dict(zip(split.samples["trial"], split.samples["split"], strict=True))
    assert got == dict(zip(table["trial"], table["split"], strict=True))


def test_the_users_own_times(trains, tmp_path):
    table = pd.DataFrame(
        {
            "session": ["s1"] * 3 + ["other"],
            "start": [0.0, 40.5, 60.0, 0.0],
            "stop": [40.0, 59.8, 100.0, 100.0],
            "split": ["train", "validation", "test", "test"],
        }
    )
    table.to_csv(tmp_path / "mine.csv", index=False)
    split = make_split([trains], CONTINUOUS, SplitSettings(scheme="file", file=str(tmp_path / "mine.csv")), "c")
    train = split.part("s1", "train")
    assert len(train) == 80 and train["start_tick"].max() == 3_950_000
    assert split.part("s1", "test")["start_tick"].min() >= 6_000_000


def test_the_sources_own_column():
    """Trials of another name are in no part, and neither are windows of no trial."""
    session = _session(_trials(["a"] * 4).assign(split=["test", "validation", "unused", "train"]))
    samples = make_split([session], TRIALS, SplitSettings(scheme="column"), "c").samples
    assert dict(zip(samples["trial"], samples["split"], strict=True)) == {0: "test", 1: "validation", 3: "train"}
    with pytest.raises(InputError, match="no window in the split part train"):
        make_split([session], replace(CONTINUOUS, history=0.0), SplitSettings(scheme="column"), "c")


def test_a_file_names_all_parts_whatever_the_fractions(trains, tmp_path):
    pd.DataFrame({"trial": [0, 1], "split": ["train", "test"]}).to_csv(tmp_path / "mine.csv", index=False)
    settings = SplitSettings(scheme="file", file=str(tmp_path / "mine.csv"), fractions=(0.8, 0.0, 0.2))
    with pytest.raises(InputError, match="no trial in the split part validation"):
        make_split([trains], TRIALS, settings, "c")


def test_a_session_whose_name_is_a_number(tmp_path):
    session = _session(_trials(["a"] * 3))
    session.session = "715093703"
    table = pd.DataFrame({"session": [715093703] * 3 + [2], "trial": [0, 1, 2, 0], "split": [*PARTS, "train"]})
    table.to_csv(tmp_path / "mine.csv", index=False)
    split = make_split([session], TRIALS, SplitSettings(scheme="file", file=str(tmp_path / "mine.csv")), "c")
    assert split.samples["split"].tolist() == list(PARTS)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"trial": [0, 1], "split": ["train", "exam"]}, "exam"),
        ({"trial": [0, 1, 1], "split": list(PARTS)}, "trial 1 twice"),
        ({"row": [0, 1], "split": ["train", "test"]}, "trial or start and stop"),
        ({"trial": [0, 1], "split": ["train", "test"]}, "validation"),
        ({"trial": [0, 1], "split": ["train", None]}, "split: found nan"),
        ({"trial": [0, 1, 2], "split": ["exam", None, "train"]}, "split: found exam"),
        ({"trial": [0, None, 2], "split": list(PARTS)}, "trial, row 1: found nan"),
        ({"trial": ["a", "b", "c"], "split": list(PARTS)}, "trial, row 0: found a"),
        ({"trial": [1, 2, 62], "split": list(PARTS)}, "trial: found 62; accepted: rows of the trials .* 0 to 61"),
        ({"trial": [0, 1.5, 2], "split": list(PARTS)}, "trial: found 1.5"),
        ({"start": [0.0, 50.0, 60.0], "stop": [40.0, 41.0, 70.0], "split": list(PARTS)}, "stop, row 1: found 41.0"),
        (
            {"start": [0.0, 40.0, 39.0], "stop": [40.0, 50.0, 42.0], "split": list(PARTS)},
            "a window of train that is of test, too",
        ),
        ({"start": [0.0, 40.0, None], "stop": [40.0, 50.0, 60.0], "split": list(PARTS)}, "start, row 2: found nan"),
        ({"start": [0.0, 40.0, 50.0], "stop": [40.0, "x", 60.0], "split": list(PARTS)}, "stop, row 1: found x"),
    ],
)
def test_a_split_file_that_makes_no_sense(trains, table, match, tmp_path):
    pd.DataFrame(table).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match=match):
        make_split([trains], TRIALS, SplitSettings(scheme="file", file=str(tmp_path / "mine.csv")), "c")
    with pytest.raises(InputError, match="readable"):
        make_split([trains], TRIALS, SplitSettings(scheme="file", file=str(tmp_path / "none.csv")), "c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fractions", (np.nan, 0.5, 0.5)),
        ("fractions", (0.5, np.nan, 0.5)),
        ("block", np.inf),
        ("block", 1e-6),
        ("gap", np.nan),
        ("forward", np.inf),
        ("heldout_units", np.nan),
        ("heldout_units", np.inf),
        ("train_share", np.nan),
        ("seed", -1),
        ("fractions", (0.0, 0.5, 0.5)),
        ("fractions", (1.2, -0.1, -0.1)),
        ("fractions", (0.7, 0.1, 0.25)),
        ("gap", -0.5),
        ("forward", -0.1),
        ("heldout_units", -1),
        ("heldout_units", 1.5),
        ("file", "of no scheme.csv"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(InputError, match=f"splits.{name}"):
        SplitSettings(**{name: value})


def test_a_part_or_session_that_is_none_is_refused(trains):
    """It would be one without windows, of which nothing can be said."""
    split = make_split([trains], WindowSettings(), SplitSettings(), "c")
    with pytest.raises(InputError, match="split of cohort c: part: found 'tset'; accepted: did you mean 'test'"):
        split.part(trains.session, "tset")
    with pytest.raises(InputError, match="session: found 'nobody'; accepted: one of"):
        split.part("nobody", "test")


@pytest.mark.parametrize("name", ["", "..", "mouse 1/day 2", "x" * 300])
def test_a_session_that_predictions_cannot_be_stored_under_is_refused_before_a_fit(name, trains):
    """Recordings made by hand have any name; that of a row of the session sheet was looked at."""
    with pytest.raises(InputError, match=r"sessions: found .*accepted: names that predictions"):
        make_split([replace(trains, session=name)], TRIALS, SplitSettings(), "c")


def test_a_session_is_in_a_cohort_once(trains):
    with pytest.raises(InputError, match="s1 twice"):
        make_split([trains, trains], TRIALS, SplitSettings(), "c")


def test_what_is_written_is_read(trains, tmp_path):
    split = make_split([trains], replace(TRIALS, history=0.1), SplitSettings(heldout_units=3, forward=0.1), "c")
    for name in ("one", "two"):
        split.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    read = Split.read(tmp_path / "one")
    pd.testing.assert_frame_equal(read.samples, split.samples)
    np.testing.assert_array_equal(read.heldout["s1"], split.heldout["s1"])
    assert read.heldout["s1"].dtype == np.int64  # rows, even where there is none
    for name in ("forward_bins", "bin_size", "bin_ticks", "history_bins", "cohort", "sessions", "event", "before"):
        assert getattr(read, name) == getattr(split, name)
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other")
    with pytest.raises(InputError):
        Split.read(tmp_path / "other")


def test_trials_too_close_for_their_history():
    trains = _session(_trials(["a"] * 60, period=1.0))
    with pytest.raises(InputError, match="trials that do not overlap, a shorter windows"):
        make_split([trains], WindowSettings(after=1.0, history=0.1), SplitSettings(), "c")
    make_split([trains], WindowSettings(after=1.0, history=0.1), SplitSettings(scheme="blocks", block=5.0), "c")
    with pytest.raises(InputError, match="leakage"):
        make_split([trains], WindowSettings(after=1.5), SplitSettings(), "c")
