"""What a run finds wrong before any job: the place named is the one to edit."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline_lib import preflight as preflight_module
from pipeline_lib.errors import InputError
from pipeline_lib.models import registry
from pipeline_lib.plan import Cohort, load_config
from pipeline_lib.preflight import preflight
from pipeline_lib.training import code_id
from pipeline_lib.trains.splits import Split
from pipeline_lib.trains.store import Trains

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


def _check(folder: Path, name: str = "mine.yaml", **more: Any) -> dict[str, set[str]]:
    windows = {"mode": "continuous", "bin_size": 20}
    config = {"sessions": "sheet.tsv", "data": ".", "model_directory": "models", "models": ["glm"], "windows": windows}
    (folder / name).write_text(yaml.safe_dump(config | more))
    return preflight(load_config(name), name)


def _complaint(folder: Path, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        _check(folder, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mistake_in_settings_is_told_where_they_stand(folder: Path) -> None:
    assert _complaint(folder, models={"glm": {"histroy": 1}}).startswith("mine.yaml: models.glm: histroy:")
    cohorts = {"a": {"model_settings": {"glm": {"histroy": 1}}}}
    assert _complaint(folder, cohorts=cohorts).startswith("mine.yaml: cohorts.a.model_settings.glm: histroy:")
    cohorts = {
        "a": {"model_settings": {"glm": {"history": "long"}}},
        "b": {"model_settings": {"glm": {"history": 0.1}}},
    }
    assert _complaint(folder, cohorts=cohorts).startswith("mine.yaml: cohorts.a.model_settings.glm: history:")
    (folder / "models/glm.yaml").write_text("implementation: glmm\n")
    assert _complaint(folder).startswith("models/glm.yaml: implementation: found 'glmm'")
    (folder / "models/glm.yaml").write_text("history: long\n")
    assert _complaint(folder).startswith("models/glm.yaml: history: found 'long'")
    assert _complaint(folder, models={"glm": {"folds": 3}}).startswith("models/glm.yaml: history: found 'long'")


def test_settings_of_a_model_that_is_not_fitted_are_noted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Defaults that cohorts share are no mistake; a slip is seen before hours of fitting."""
    both = {"models": {"glm": {}, "ndt": {}}}
    _check(folder, **both, cohorts={"a": {"model_settings": {"ndt": {"dropout": 0.1}}}})
    assert capsys.readouterr().err == ""
    _check(folder, **both, cohorts={"a": {"models": ["glm"], "model_settings": {"ndt": {"dropout": 0.1}}}})
    assert capsys.readouterr().err.splitlines() == [
        "note: mine.yaml: without effect, because the model is not fitted there: cohorts.a.model_settings.ndt"
    ]


def test_what_says_something_of_no_session_is_noted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Options of another source than the sheet names, a simulation without its row, a length of windows of trials."""
    unused = {"sources": {"tables": {}, "nwb": {}}, "simulations": {"sim": {"simulator": "glm"}}, "models": []}
    _check(folder, **unused, windows={"length": 5.0, "align": "stop", "mode": "trials"})
    keys = "sources.nwb, simulations.sim, windows.length"
    note = f"note: mine.yaml: without effect on any session: {keys}\n"
    assert capsys.readouterr().err == note
    shared = {"length": 5.0, "after": None, "bin_size": 20, "mode": "continuous"}
    _check(folder, models=[], windows=shared, cohorts={"a": {"windows": {"mode": "trials"}}})
    assert capsys.readouterr().err == "", "one cohort reads each of them"
    _check(folder, models=[], windows=shared | {"conditions": ["left"]})
    assert capsys.readouterr().err.endswith("any session: windows.after, windows.conditions\n")


@pytest.mark.parametrize(
    ("model", "key"),
    [
        *[("lfads", key) for key in ("initial_segment", "kl_initial", "l2_generator", "prior_noise")],
        *[("ndt", "context_backward"), ("neuroformer", "contrastive_weight"), ("glm", "tolerance")],
    ],
)
def test_no_setting_is_infinite(folder: Path, model: str, key: str) -> None:
    """Fits ended in a traceback, or in weights that are no numbers."""
    (folder / f"models/{model}.yaml").write_text(f"{key}: .inf")
    assert f"{model}.yaml: {key}: found inf;" in _complaint(folder, models=[model])
    (folder / f"models/{model}.yaml").write_text(f"{key}: .nan")
    assert f"{model}.yaml: {key}: found nan;" in _complaint(folder, models=[model])


def test_an_initial_segment_is_a_bin_at_least(folder: Path) -> None:
    """Of half a bin was none left, and the scores said that only the first of a window was seen."""
    (folder / "models/lfads.yaml").write_text("")
    found = _complaint(folder, models={"lfads": {"initial_segment": 0.01}})
    assert found == "mine.yaml: models.lfads: initial_segment: found 0.01; accepted: 0, or a bin of 20 ms at least"
    _check(folder, models={"lfads": {"initial_segment": 0.02}})


def test_a_mistake_in_the_file_of_a_model_is_told_with_that_file(folder: Path) -> None:
    (folder / "own.py").write_text("MODELL = int\n")
    (folder / "models/glm.yaml").write_text("implementation: own.py\n")
    assert _complaint(folder).startswith("own.py: MODEL: found None")
    (folder / "models/glm.yaml").write_text("implementation: owm.py\n")
    assert _complaint(folder).startswith("models/glm.yaml: implementation: found no file owm.py")


def test_settings_of_a_model_and_windows_that_do_not_go_together_are_told(folder: Path) -> None:
    """Else the fit would say so, hours later and after those of other models."""
    continuous = {"mode": "continuous", "bin_size": 20, "history": 0.1}
    for name in ("neuroformer", "glm_transformer"):
        (folder / f"models/{name}.yaml").write_text("")
    own = {"models": {"neuroformer": {"window": 0.1, "past": 0.2}}}
    found = _complaint(folder, models=["neuroformer"], windows=continuous)
    assert found == "models/neuroformer.yaml: window: found 0.05 s; accepted: a whole number of 20.0-ms bins"
    assert _complaint(folder, **own, windows=continuous).startswith("mine.yaml: models.neuroformer: past: found 0.2 s;")
    cohorts = {"b": {"windows": continuous | {"history": 0.2}, "splits": {"forward": 0.1}}}
    later = {"windows": continuous | {"history": 0.2}, "cohorts": cohorts}
    assert _complaint(folder, **own, **later).startswith("mine.yaml: cohort b, model neuroformer: splits.forward:")
    _check(folder, **own, windows=continuous | {"history": 0.2})
    found = _complaint(folder, models=["glm_transformer"], windows=continuous)
    assert found.startswith("models/glm_transformer.yaml: history_peak: found 0.003;")


def test_relations_of_settings_and_windows_are_told_before_any_job(folder: Path) -> None:
    (folder / "models/glm_transformer.yaml").write_text("{coupling_peak: 0.1, history_peak: 0.1}")
    baselines = {"condition_baselines": True}
    found = _complaint(folder, models={"glm": baselines})
    assert found.startswith("mine.yaml: models.glm: condition_baselines: found True; accepted: with a baseline:")
    _check(folder, models={"glm": baselines | {"baseline": 5}})
    splines = {"glm_transformer": {"splines": 200}}
    assert _complaint(folder, models=splines).endswith("the longest has 50 bins, and at least 3 are needed")
    short = {"mode": "continuous", "bin_size": 20, "length": 0.04}
    assert "splines: found 20" in _complaint(folder, models=["glm_transformer"], windows=short)
    _check(folder, models={"glm_transformer": {"splines": 20}})
    cut = {"bin_size": 20, "before": 0.02, "after": 0.02}
    for windows, known in ((cut, True), (cut | {"after": None}, False)):
        assert ("the longest has 2 bins" in _complaint(folder, models=["glm_transformer"], windows=windows)) == known


def test_heldout_units_that_never_fire_are_noted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """A score of held-out units would be that of the others alone."""
    (folder / "units.csv").write_text("unit_id\n0\n1\n2\n3\n")
    (folder / "sheet.tsv").write_text("session\tsource\tlocation\toptions\na\ttables\ta.npz\tunits: units.csv\n")
    _check(folder, splits={"heldout_units": 3})
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: mine.yaml: cohort a: 1 of 3 held-out units of a never fire: there is nothing to")
    (folder / "sheet.tsv").write_text(
        "session\tsource\tlocation\toptions\na\ttables\ta.npz\tunits: units.csv, min_rate: 0.1\n"
    )
    _check(folder, splits={"heldout_units": 2})
    assert capsys.readouterr().err == ""


def test_a_cohort_in_which_nothing_can_be_scored_is_noted(folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Its figures alone would say why they are empty."""
    told = "note: mine.yaml: cohort {}: all windows train, none is for validation or test: its fits have no scores"
    everything = {"splits": {"fractions": [1, 0, 0]}}
    _check(folder, cohorts={"all": {"sessions": ["a", "b"], **everything}, "a": {}})
    assert capsys.readouterr().err.splitlines() == [told.format("all")]
    _check(folder, **everything)
    assert capsys.readouterr().err.splitlines() == [*map(told.format, "ab")]
    _check(folder, models=[], **everything)
    assert capsys.readouterr().err == ""


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
    (folder / "weights.safetensors").touch()
    _check(folder, models={"ndt": {"initial": "weights.safetensors"}})
    chain = {"a": "b", "b": "c", "c": "b"}
    sessions = "\n".join(f"{session}\ttables\ta.npz\t" for session in chain)
    (folder / "sheet.tsv").write_text(f"session\tsource\tlocation\toptions\n{sessions}\n")
    round_b = {each: {"model_settings": {"ndt": {"initial": OWN.format(before)}}} for each, before in chain.items()}
    assert "would start from itself" in _complaint(folder, models=models, cohorts=round_b)
    back = tuned | {"b": {"model_settings": {"ndt": {"initial": OWN.format("a")}}}}
    assert "would start from itself" in _complaint(folder, models=models, cohorts=back)
    lost = tuned | {"b": {"model_settings": {"ndt": {"initial": "lab/b"}}}}
    assert "cohorts.b.model_settings.ndt: initial: found no file lab/b" in _complaint(
        folder, models=models, cohorts=lost
    )
    assert "models.ndt: initial: found no file lab" in _complaint(folder, models={"ndt": {"initial": "lab/a"}})
    assert "models.ndt: initial: found 3" in _complaint(folder, models={"ndt": {"initial": 3}})


def test_the_model_of_a_search_is_looked_at_although_its_code_is_part_of_anothers(folder: Path) -> None:
    """LFADS imports modules of the NDT: searching that as well adds no code."""
    (folder / "models/lfads.yaml").write_text("")
    (folder / "searches").mkdir()
    (folder / "searches/layers.yaml").write_text("{model: ndt, space: {layers: {choice: [1, 2]}}}")
    assert _check(folder, models=["lfads"])["uses_gpu"] == {"lfads"}
    searched = {"search_directory": "searches", "searches": {"layers": ["a"]}}
    assert _check(folder, models=["lfads"], **searched)["uses_gpu"] == {"lfads", "ndt"}


def test_a_file_that_snakemake_cannot_name_is_refused(folder: Path) -> None:
    (folder / "a.npz").rename(folder / "a{1}.npz")
    (folder / "sheet.tsv").write_text("session\tsource\tlocation\na\ttables\ta{1}.npz\n")
    assert _complaint(folder).startswith("a{1}.npz: path: found a brace")


def test_where_nothing_may_be_written_is_looked_at_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("pipeline_lib.preflight.write_json", refuse)
    monkeypatch.setattr("pipeline_lib.training.code_id.write_json", refuse)
    assert "histroy" in _complaint(folder, models={"glm": {"histroy": 1}})
    _check(folder)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cohorts and models as they are looked at."""
    seen: list[str] = []
    split, load = preflight_module._split_in_memory, registry.load_model

    def splitting(trains: list[Trains], cohort: Cohort, where: str) -> Split:
        seen.append(cohort.cohort)
        return split(trains, cohort, where)

    def loading(implementation: str) -> type:
        seen.append(implementation)
        return load(implementation)

    monkeypatch.setattr(preflight_module, "_split_in_memory", splitting)
    monkeypatch.setattr(registry, "load_model", loading)
    return seen


def test_what_was_found_right_is_looked_at_again_when_it_changes(folder: Path, looked_at: list[str]) -> None:
    (folder / "own.py").write_text("from pipeline_lib.models.mean_rate import MODEL\n")
    (folder / "models/own.yaml").write_text("implementation: own.py\n")
    (folder / "parts.csv").write_text("split,start,stop\ntrain,0,40\nvalidation,40,50\ntest,50,60\n")
    parts = {"a": {"splits": {"scheme": "file", "file": "parts.csv"}}}

    def seen(**more: Any) -> set[str]:
        looked_at.clear()
        for cached in (code_id._code_id, code_id._file_content, code_id._tree):
            cached.cache_clear()  # as in a new process
        able = _check(folder, **({"models": ["own", "ndt"], "cohorts": parts} | more))
        assert able == {"uses_gpu": {"ndt"}, "random": {"ndt"}}
        return set(looked_at)

    def touch(name: str) -> None:
        status = (folder / name).stat()
        os.utime(folder / name, ns=(0, status.st_mtime_ns + 1))

    assert seen() == {"a", "b", "ndt", "own.py"}
    assert seen() == set()
    touch("b.npz")
    assert seen() == {"b"}
    touch("parts.csv")
    assert seen() == {"a"}
    (folder / "own.py").write_text("from pipeline_lib.models.mean_rate import MODEL\n\nNUMBER = 1\n")
    assert seen() == {"ndt", "own.py"}
    assert seen(models={"own": {}, "ndt": {"layers": 1}}) == {"ndt", "own.py"}
    assert seen(windows={"mode": "continuous", "bin_size": 10}) == {"a", "b", "ndt", "own.py"}
    assert seen(windows={"mode": "continuous", "bin_size": 10}, splits={"block": 5.0}) == {"a", "b"}
    assert seen(name="other.yaml") == {"a", "b", "ndt", "own.py"}
    assert seen(windows={"mode": "continuous", "bin_size": 10}, splits={"block": 5.0}) == set(), "not forgotten"
    for memory in folder.glob(".snakemake/trainyard_checked*"):
        memory.write_text("[")
    assert seen() == {"a", "b", "ndt", "own.py"}


def test_what_is_not_here_yet_or_large_is_left_to_its_job(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sheet.tsv").write_text("session\tsource\tlocation\na\ttables\ta.npz\ns\ttables\tsimulated:sim\n")
    simulated = {"simulations": {"sim": {"simulator": "glm"}}, "cohorts": {"both": {"sessions": ["a", "s"]}}}
    _check(folder, **simulated)
    assert [name for name in looked_at if name != "glm"] == ["a"]
    monkeypatch.setattr(preflight_module, "LARGE", 1)
    looked_at.clear()
    _check(folder, **simulated, splits={"block": 5.0})
    assert looked_at == []


def test_a_recording_that_contradicts_itself_is_told(folder: Path) -> None:
    (folder / "sheet.tsv").write_text("session\tsource\tlocation\toptions\na\ttables\ta.npz\tduration: 30\n")
    assert "30" in _complaint(folder)


def test_what_no_session_has_is_not_decoded(folder: Path, looked_at: list[str]) -> None:
    """Of one session it is a score that is not a number; of all of them, a slip, seen before hours of fitting."""
    pd.DataFrame({"time": [0.0, 60.0], "x": [0.0, 1.0]}).to_csv(folder / "wheel.csv", index=False)
    pd.DataFrame({"start": [1, 2], "stop": [2, 3], "side": ["l", "r"]}).to_csv(folder / "trials.csv", index=False)
    options = "signals: {wheel: wheel.csv}, trials: trials.csv"
    (folder / "sheet.tsv").write_text(
        f"session\tsource\tlocation\toptions\na\ttables\ta.npz\t\nb\ttables\tb.npz\t{options}\n"
    )

    def decoding(target: dict) -> dict:
        return {"evaluation": {"decoding": {"mine": target}}}

    _check(folder, **decoding({"signal": "wheel"}))
    assert {"a", "b"} < set(looked_at)
    looked_at.clear()
    _check(folder, **decoding({"choice": "side"}))
    assert "evaluation.decoding.mine: found signal 'weel'" in _complaint(folder, **decoding({"signal": "weel"}))
    complaint = _complaint(folder, **decoding({"choice": "sides"}))
    assert "column 'sides', which no session has; accepted: did you mean 'side'?" in complaint
    complaint = _complaint(folder, **decoding({"signal": "wheel", "within": ["sides"]}))
    assert "column 'sides', which no session has; accepted: did you mean 'side'?" in complaint
    assert "column 'rt'" in _complaint(folder, **decoding({"timing": "rt"}))
    assert "column ''" in _complaint(folder, **decoding({"choice": ""}))
    assert looked_at == [], "remembered, with what the sessions have"
    _check(folder, **decoding({"signal": "weel"}), models=[])
    (folder / "sheet.tsv").write_text("session\tsource\tlocation\na\ttables\ta.npz\ns\ttables\tsimulated:sim\n")
    _check(folder, **decoding({"signal": "weel"}), simulations={"sim": {"simulator": "glm"}})


def test_sessions_that_are_only_drawn_are_not_cut(folder: Path, looked_at: list[str]) -> None:
    """A recording without trials can be looked at before it is decided where its windows lie."""
    trials = {"windows": {"mode": "trials"}}
    _check(folder, models=[], **trials)
    assert looked_at == []
    assert "cohort a: windows.mode: found trials" in _complaint(folder, **trials)
    (folder / "a.npz").write_bytes(b"cut short")
    assert "a.npz" in _complaint(folder, models=[], **trials)


def test_seeds_that_cannot_train_together_are_refused(folder: Path) -> None:
    assert _complaint(folder, models={"glm": {"ensemble": True}}).startswith("mine.yaml: models.glm: model: found glm")
