"""Further predictions of a published fit."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_tree
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.predict import predict, predict_windows
from pipeline_lib.trains.store import Trains
from tests.small_cohort import SPLITS, WINDOWS, open_cohort, recording, write_cohort


def test_the_training_part_is_predicted_as_the_model_would(tmp_path: Path) -> None:
    stores, split = write_cohort(tmp_path)
    fit(stores, split, "psth", "psth", {"smoothing": [20.0], "pseudo_trials": [2.0]}, 0, tmp_path / "fit")
    predict(tmp_path / "fit", stores, split, tmp_path / "train")
    data = open_cohort(stores, split)
    samples = data.samples("small0", "train")
    expected = load_fit(tmp_path / "fit").predict(data, "small0", samples)
    root = zarr.open_group(str(tmp_path / "train" / "predictions.zarr"), mode="r")
    np.testing.assert_array_equal(root["small0/sample"][:], samples.index)
    np.testing.assert_array_equal(root["small0/rates"][:], expected)
    manifest = json.loads((tmp_path / "train" / "manifest.json").read_text())
    assert manifest["parts"] == ["train"]
    assert manifest["sha256"] == sha256_tree(tmp_path / "train" / "predictions.zarr")
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        ".lock",
        "manifest.json",
        "predictions.zarr",
    ]
    with pytest.raises(InputError, match="did you mean 'train'"):
        predict(tmp_path / "fit", stores, split, tmp_path / "out", ["trian"])
    with pytest.raises(InputError, match="finished fit"):
        predict(tmp_path / "none", stores, split, tmp_path / "out")


def test_other_data_than_the_fits_are_refused(tmp_path: Path) -> None:
    stores, split = write_cohort(tmp_path)
    others, another = write_cohort(tmp_path / "others", splits=replace(SPLITS, seed=2), made=[recording(seed=1)])
    fit(stores, split, "mean_rate", "mean_rate", {}, 0, tmp_path / "fit")
    with pytest.raises(InputError, match="another split than the fit's"):
        predict(tmp_path / "fit", stores, another, tmp_path / "out")
    with pytest.raises(InputError, match="other spike trains than the fit's"):
        predict(tmp_path / "fit", others, split, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_windows_of_a_new_recording_are_predicted_as_those_of_the_split(tmp_path: Path) -> None:
    """The very trials of the fit under another name: held-out units and forward bins are hidden from them, too."""
    stores, split = write_cohort(tmp_path)
    data = open_cohort(stores, split)
    expected = data.samples("small0", "test")
    day2 = Trains.from_recording(recording("day2"))
    for model, settings in (("glm", {"strength": 1.0}), ("ndt", {"steps": 2, "evaluate_every": 2, "layers": 1})):
        fit(stores, split, model, model, settings, 0, tmp_path / model)
        windows, rates = predict_windows(tmp_path / model, split, day2, WINDOWS, session="small0")
        assert windows["session"].unique() == "day2" and len(windows) == len(rates) == 60
        rows = windows.index[windows["trial"].isin(expected["trial"])]
        same = load_fit(tmp_path / model).predict(data, "small0", expected)
        np.testing.assert_allclose(rates[rows], same, rtol=0, atol=1e-6)


COPIES = """
from dataclasses import dataclass
import numpy as np
from pipeline_lib.models.contract import Model

@dataclass(frozen=True)
class Config:
    pass

class Copies(Model):
    Config, sees = Config, "all that it is given"
    def fit(self, data, run): pass
    def predict(self, data, session, samples): return data.targets(session, samples)[0].astype(np.float32)
    def state(self): return {}
    def load_state(self, state): pass

MODEL = Copies
"""


def test_a_model_is_given_nothing_hidden_of_a_new_recording(tmp_path: Path) -> None:
    """Whatever it would do with it."""
    stores, split = write_cohort(tmp_path)
    (tmp_path / "copies.py").write_text(COPIES)
    fit(stores, split, "copies", str(tmp_path / "copies.py"), {}, 0, tmp_path / "fit")
    day2 = Trains.from_recording(recording("day2"))
    given = predict_windows(tmp_path / "fit", split, day2, WINDOWS, "small0", str(tmp_path / "copies.py"))[1]
    data = open_cohort(stores, split)
    ahead = data.split.forward_bins
    assert not given[:, :, data.heldout("small0")].any() and not given[:, -ahead:].any()
    assert (given[:, :-ahead, data.heldin("small0")].sum((0, 1)) > 0).all()


def test_windows_that_the_fit_knows_nothing_of_are_refused(tmp_path: Path) -> None:
    stores, split = write_cohort(tmp_path)
    _, another = write_cohort(tmp_path / "others", splits=replace(SPLITS, seed=2), made=[recording(seed=1)])
    fit(stores, split, "mean_rate", "mean_rate", {}, 0, tmp_path / "fit")
    day1, fewer = (Trains.from_recording(recording("small0", units=units)) for units in (12, 8))

    def predicted(trains: Trains = day1, path: Path = split, session: str | None = None, **other: float) -> np.ndarray:
        return predict_windows(tmp_path / "fit", path, trains, replace(WINDOWS, **other), session)[1]

    assert predicted().shape == (60, 50, 12)
    with pytest.raises(InputError, match="bin_size: found 10; accepted: 20 ms, as in the fit"):
        predicted(bin_size=10.0)
    with pytest.raises(InputError, match="history: found 0; accepted: 5 bins, as in the fit"):
        predicted(history=0.0)
    with pytest.raises(InputError, match="units: found 8; accepted: 12 units of session small0, as in the fit"):
        predicted(fewer)
    with pytest.raises(InputError, match=r"session: found day2; accepted: a session of the fit, small0"):
        predicted(session="day2")
    with pytest.raises(InputError, match="another split than the fit's"):
        predicted(path=another)
    with pytest.raises(InputError, match="split: found no such file; accepted: a split this package wrote"):
        predicted(path=tmp_path / "none.parquet")
