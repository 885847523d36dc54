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
from pipeline_lib.training.predict import predict
from tests.small_cohort import SPLITS, open_cohort, recording, write_cohort


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
