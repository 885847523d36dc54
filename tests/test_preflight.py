"""What a run finds wrong before any job: the place named is the one to edit."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.plan import load_config
from pipeline_lib.preflight import preflight

OWN = "results/fits/{}/ndt/seed0/model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sessions of a lab, `a` and `b`, and the model files `glm` and `ndt`."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for session in "ab":
        time = np.sort(random.uniform(0, 60, 600))
        np.savez(tmp_path / f"{session}.npz", time=time, unit=random.integers(0, 3, 600))
    rows = [f"{session}\ttables\t{session}.npz\t" for session in "ab"]
    (tmp_path / "sheet.tsv").write_text("\n".join(["session\tsource\tlocation\toptions", *rows]) + "\n")
    (tmp_path / "models").mkdir()
    for model in ("glm", "ndt"):
        (tmp_path / "models" / f"{model}.yaml").write_text("")
    return tmp_path


def _check(folder: Path, **more: object) -> None:
    windows = {"mode": "continuous", "bin_size": 20}
    config = {"sessions": "sheet.tsv", "data": ".", "model_directory": "models", "models": ["glm"], "windows": windows}
    (folder / "mine.yaml").write_text(yaml.safe_dump(config | more))
    preflight(load_config("mine.yaml"), "mine.yaml")


def _complaint(folder: Path, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        _check(folder, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mistake_in_settings_is_told_where_they_stand(folder: Path) -> None:
    assert _complaint(folder, models={"glm": {"histroy": 1}}).startswith("mine.yaml: models.glm: histroy:")
    cohorts = {"a": {"model_settings": {"glm": {"histroy": 1}}}}
    assert _complaint(folder, cohorts=cohorts).startswith("mine.yaml: cohorts.a.model_settings.glm: histroy:")
    (folder / "models/glm.yaml").write_text("implementation: glmm\n")
    assert _complaint(folder).startswith("models/glm.yaml: implementation: found 'glmm'")
    (folder / "models/glm.yaml").write_text("history: long\n")
    assert _complaint(folder).startswith("models/glm.yaml: history: found 'long'")


def test_a_mistake_in_the_file_of_a_model_is_told_with_that_file(folder: Path) -> None:
    (folder / "own.py").write_text("MODELL = int\n")
    (folder / "models/glm.yaml").write_text("implementation: own.py\n")
    assert _complaint(folder).startswith("own.py: MODEL: found None")
    (folder / "models/glm.yaml").write_text("implementation: owm.py\n")
    assert _complaint(folder).startswith("models/glm.yaml: implementation: found no file owm.py")


def test_a_date_is_a_wrong_value_like_another(folder: Path) -> None:
    (folder / "models/glm.yaml").write_text("history: 2024-01-02\n")
    assert _complaint(folder).startswith("models/glm.yaml: history: found datetime.date(2024, 1, 2)")


def test_figures_and_splits_are_told_with_their_file(folder: Path) -> None:
    assert _complaint(folder, figures=["rastr_rates"]).startswith("mine.yaml: figures:")
    splits = {"scheme": "file", "file": "no.csv"}
    assert _complaint(folder, cohorts={"b": {"splits": splits}}).startswith("mine.yaml: cohort b: splits.file:")


def test_weights_to_start_from_are_there_or_made_before(folder: Path) -> None:
    models = {"ndt": {}}
    tuned = {"a": {"model_settings": {"ndt": {"initial": OWN.format("b")}}}}
    _check(folder, models=models, cohorts=tuned)
    back = tuned | {"b": {"model_settings": {"ndt": {"initial": OWN.format("a")}}}}
    assert "would start from itself" in _complaint(folder, models=models, cohorts=back)
    assert "models.ndt: initial: found no file lab" in _complaint(folder, models={"ndt": {"initial": "lab/a"}})
    assert "models.ndt: initial: found 3" in _complaint(folder, models={"ndt": {"initial": 3}})
