"""A cohort of several sessions: each is scored, averaged and submitted as if it were alone."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from safetensors.numpy import load_file

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.average import average
from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.evaluation.settings import Target
from pipeline_lib.sources.simulate import simulate
from pipeline_lib.submission import brain_wide_bench, nlb
from pipeline_lib.trains.settings import SplitSettings, WindowSettings
from pipeline_lib.trains.splits import Split, make_split
from pipeline_lib.trains.store import Trains, convert
from tests.evaluation.made_up_fit import name_fit

UNITS = {"second": 9, "first": 14}
BINS = 50


class Sessions:
    """Two sessions of different units and trials, together and each alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for seed, (name, units) in enumerate(UNITS.items()):
            settings = {"conditions": 2, "repeats": 12 + 3 * seed, "units": units, "base_rate": 12.0}
            made = simulate("lorenz", settings, seed, name)
            made.write(self.recordings(name))
            convert(self.recordings(name), self.trains(name))
        for names in (list(UNITS), ["first"], ["second"]):
            opened = [Trains.open(self.trains(name)) for name in names]
            settings = SplitSettings(fractions=(0.5, 0.2, 0.3), heldout_units=3, forward=0.1, seed=4)
            split = make_split(opened, WindowSettings(bin_size=20.0, after=1.0), settings, "cohort")
            split.write(self.split_path(names))
            for kind, parts in (("fit", ["validation", "test"]), ("train", ["train"])):
                self.write(names, split, kind, parts)

    def recordings(self, name: str) -> Path:
        return self.directory / "recordings" / name

    def trains(self, name: str) -> Path:
        return self.directory / "trains" / name

    def split_path(self, names: list[str]) -> Path:
        return self.directory / f"{'-'.join(names)}.parquet"

    def fit(self, names: list[str], kind: str = "fit", seed: int = 0) -> Path:
        return self.directory / "-".join(names) / kind / f"seed{seed}"

    def write(self, names: list[str], split: Split, kind: str, parts: list[str]) -> None:
        """Rates by the trial alone, whatever its number in the split."""
        for seed in (0, 1):
            about = {"sees": "all units", "bin_size": 20.0}
            root = zarr.open_group(str(self.fit(names, kind, seed) / "predictions.zarr"), mode="w", attributes=about)
            name_fit(self.fit(names, kind, seed), "made_up", seed)
            for name in names:
                samples = split.samples[(split.samples["session"] == name) & split.samples["split"].isin(parts)]
                trials = np.random.default_rng([seed, UNITS[name]]).gamma(2.0, 0.2, (100, BINS, UNITS[name]))
                group = root.create_group(name)
                group.create_array("rates", data=trials[samples["trial"]].astype(np.float32))
                group.create_array("sample", data=samples.index.to_numpy())

    def table(self, names: list[str]) -> pd.DataFrame:
        out = self.directory / "scores.parquet"
        scoring = Scoring(
            [self.trains(name) for name in names],
            self.split_path(names),
            [self.recordings(name) for name in sorted(names)],  # in another order
            resamples=20,
            decoding={"condition": Target(choice="condition")},
            few_shot=[3],
        )
        evaluate(self.fit(names), scoring, out, self.fit(names, "train"))
        return pd.read_parquet(out)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    return Sessions(tmp_path_factory.mktemp("sessions"))


def test_a_session_scores_in_a_cohort_what_it_scores_alone(sessions: Sessions) -> None:
    together = sessions.table(list(UNITS))
    wanted = {"rate_r2", "few_shot_3_bits_per_spike", "forward_bits_per_spike", "nlb_psth_r2"}
    for name in UNITS:
        alone = sessions.table([name])
        assert wanted <= set(alone["metric"]) and alone["value"].notna().all()
        pd.testing.assert_frame_equal(together[together["session"] == name].reset_index(drop=True), alone)
    assert list(together["session"].unique()) == sorted(UNITS)


def test_windows_of_another_session_are_refused(sessions: Sessions, tmp_path: Path) -> None:
    split = Split.read(sessions.split_path(list(UNITS)))
    group = zarr.open_group(str(tmp_path / "predictions.zarr"), mode="w").create_group("second")
    group.create_array("rates", data=np.ones((2, BINS, UNITS["second"]), np.float32))
    group.create_array("sample", data=split.part("first", "test").index[:2].to_numpy())
    scoring = Scoring([sessions.trains("second")], sessions.split_path(list(UNITS)), [])
    with pytest.raises(InputError, match=r"second/sample: found .*was the fit made with another"):
        evaluate(name_fit(tmp_path), scoring, tmp_path / "scores.parquet")


def test_rates_of_every_session_are_averaged(sessions: Sessions) -> None:
    names = list(UNITS)
    average([sessions.fit(names, seed=seed) for seed in (0, 1)], sessions.fit(names).with_name("mean"))
    made = zarr.open_group(str(sessions.fit(names).with_name("mean") / "predictions.zarr"), mode="r")
    assert sorted(made.group_keys()) == sorted(UNITS)
    for name in UNITS:
        each = [zarr.open_group(str(sessions.fit(names, seed=seed) / "predictions.zarr"))[name] for seed in (0, 1)]
        mean = np.mean([group["rates"][:].astype(np.float64) for group in each], axis=0).astype(np.float32)
        np.testing.assert_array_equal(made[name]["rates"][:], mean)


def test_a_session_is_submitted_from_a_cohort_as_alone(sessions: Sessions, tmp_path: Path) -> None:
    """Trials are numbered in their own session."""
    for names in (list(UNITS), ["first"], ["second"]):
        where = sessions.fit(names), [sessions.trains(name) for name in names], sessions.split_path(names)
        nlb.write(*where, tmp_path / f"{len(names)}.h5", sessions.fit(names, "train"))
        brain_wide_bench.write(*where, tmp_path / str(len(names)))
    with h5py.File(tmp_path / "1.h5") as alone, h5py.File(tmp_path / "2.h5") as together:
        for name in UNITS:
            assert set(alone[name]) == set(together[name]) and len(alone[name]) == 6
            for array in alone[name]:
                np.testing.assert_array_equal(alone[name][array][:], together[name][array][:])
    for task in ("co_smoothing", "forecasting"):
        for name in UNITS:
            one, both = (load_file(tmp_path / kind / task / name / "seed_0.safetensors") for kind in "12")
            assert one.keys() == both.keys()
            for tensor in one:
                np.testing.assert_array_equal(one[tensor], both[tensor])
