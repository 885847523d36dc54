"""Which of the fits that are there a changed configuration has left behind."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_lib.config import Config
from pipeline_lib.evaluation.average import average
from pipeline_lib.outdated import outdated_fits
from pipeline_lib.overview import overview
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Cohort, ModelPlan, Plan, Session
from pipeline_lib.training.fit import fit
from pipeline_lib.trains.splits import Split
from tests.small_cohort import SPLITS, WINDOWS, recording, store, write_fits

TUNED = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pipeline_lib.models.mean_rate import MODEL as MeanRate


@dataclass(frozen=True)
class Config:
    steps: int = 1
    initial: str | None = None


class MODEL(MeanRate):
    Config = Config
    start = 0

    def fit(self, data, run):
        super().fit(data, run)
        self.start = sum(Path(self.config.initial).read_bytes()) if self.config.initial else self.config.steps

    def state(self):
        return super().state() | {"start": np.array([self.start])}
"""
"""A model without tensors whose weights tell which it started from."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("project") / "results"
    write_fits(results, ["mean_rate", "psth"], (0, 1))
    for model in ("mean_rate", "psth"):
        folder = results / "fits/small" / model
        average([folder / "seed0", folder / "seed1"], folder / "mean")
    return results


@pytest.fixture
def results(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "results"))


def plan(results: Path, **psth: object) -> Plan:
    settings = {"sessions": "sessions.tsv", "results": str(results), "seeds": [0, 1]}
    config = Config(**settings, average_seeds=["mean_rate", "psth"])
    models = {"mean_rate": ModelPlan("mean_rate", {}), "psth": ModelPlan("psth", psth)}
    session = Session("small", "tables", "nowhere", None, {})
    return Plan(config, {"small": session}, {"small": Cohort("small", ("small",), WINDOWS, SPLITS, models)})


def outdated(asked: Plan) -> set[str]:
    """Model and seed of each."""
    found = outdated_fits(asked, Paths(asked.config.results))
    assert {cohort for cohort, _, _ in found} <= {"small"}
    return {f"{model} {seed}" for _, model, seed in found}


PSTHS, MEAN_RATES = ({f"{model} {seed}" for seed in (0, 1, "mean")} for model in ("psth", "mean_rate"))


def test_nothing_is_outdated_by_what_changes_no_result(results: Path) -> None:
    """Defaults that are spelt out, settings that no model has, code, and manifests of versions that said less."""
    assert outdated(plan(results)) == set()
    assert outdated(plan(results, smoothing=[0, 10, 20, 50, 100, 200])) == set()
    assert outdated(plan(results, smothing=[30.0])) == set()
    manifest = results / "fits/small/psth/seed1/manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"code": "another"}))
    (results / "fits/small/psth/mean/manifest.json").unlink()
    assert outdated(plan(results)) == set()
    for content in ("{}", "", "[1"):
        manifest.write_text(content)
        assert outdated(plan(results)) == set()


def test_other_settings_outdate_their_model_and_its_average(results: Path) -> None:
    asked = plan(results, smoothing=[30.0])
    assert outdated(asked) == PSTHS
    lines = overview(asked).splitlines()
    assert lines[-3].split() == ["small", "1", "2/2,", "mean", "0/2"]
    assert (
        lines[-1] == "2 of 4 fits done; 2 more were made with other settings or data, and the next run makes them anew"
    )
    folder, data = results / "fits/small/psth", ([results / "trains/small"], results / "splits/small.parquet")
    for seed, left in ((0, {"psth 1", "psth mean"}), (1, {"psth mean"})):
        fit(*data, "psth", "psth", {"smoothing": [30.0]}, seed, folder / f"seed{seed}")
        assert outdated(asked) == left
    average([folder / "seed0", folder / "seed1"], folder / "mean")
    assert outdated(asked) == set()


def test_a_name_that_stands_for_another_model_now_outdates_its_fits(results: Path, tmp_path: Path) -> None:
    """Also where both have no settings; not where the file of a user's own model was moved."""
    asked = plan(results)
    asked.cohorts["small"].models["mean_rate"] = ModelPlan("psth", {})
    assert outdated(asked) == MEAN_RATES
    (tmp_path / "mean_rate.py").write_text("from pipeline_lib.models.mean_rate import MODEL\n")
    asked.cohorts["small"].models["mean_rate"] = ModelPlan(str(tmp_path / "mean_rate.py"), {})
    assert outdated(asked) == set()


def test_what_starts_from_a_fit_that_changes_is_outdated_with_it(results: Path) -> None:
    """Before that is made anew, by its settings; after that, by the weights that are there now."""
    own_model = results / "tuned.py"
    own_model.write_text(TUNED)
    data, weights = [results / "trains/small"], results / "fits/small/tuned/seed0/model.safetensors"
    for cohort in ("fine", "finer"):
        shutil.copy(results / "splits/small.parquet", results / f"splits/{cohort}.parquet")
    tuned = {"fine": {"initial": str(weights)}, "finer": {"initial": str(weights).replace("small", "fine")}}
    own = {"small": {"steps": 2}, **{cohort: {"steps": 1} | start for cohort, start in tuned.items()}}

    def asked(steps: int) -> Plan:
        made = plan(results)
        for cohort, settings in (own | {"small": {"steps": steps}}).items():
            models = {"tuned": ModelPlan(str(own_model), settings)}
            made.cohorts[cohort] = Cohort(cohort, ("small",), WINDOWS, SPLITS, models)
        return made

    def made(cohort: str, settings: dict) -> None:
        for seed in (0, 1):
            out = results / f"fits/{cohort}/tuned/seed{seed}"
            fit(data, results / f"splits/{cohort}.parquet", "tuned", str(own_model), settings, seed, out)

    def found(steps: int) -> set[str]:
        return {cohort for cohort, _, _ in outdated_fits(asked(steps), Paths(str(results)))}

    for cohort, settings in own.items():
        made(cohort, settings)
    assert found(2) == set()
    assert found(3) == {"small", "fine", "finer"}
    made("small", {"steps": 3})
    assert found(3) == {"fine", "finer"}
    made("fine", own["fine"])
    assert found(3) == {"finer"}
    made("finer", own["finer"])
    assert found(3) == set()


def another_split(results: Path) -> None:
    path = results / "splits/small.parquet"
    replace(Split.read(path), forward_bins=1).write(path)


def other_spikes(results: Path) -> None:
    shutil.rmtree(results / "recordings/small")
    store(results, recording("small", seed=5, trials=30))


@pytest.mark.parametrize("change", [another_split, other_spikes])
def test_other_data_outdate_every_fit(results: Path, change: Callable[[Path], None]) -> None:
    change(results)
    assert outdated(plan(results)) == PSTHS | MEAN_RATES


def test_sessions_that_came_to_a_cohort_or_left_it_outdate_its_fits(results: Path) -> None:
    store(results, recording("other", seed=5, trials=30))
    asked = plan(results)
    asked.cohorts["small"] = replace(asked.cohorts["small"], sessions=("small", "other"))
    assert outdated(asked) == PSTHS | MEAN_RATES
