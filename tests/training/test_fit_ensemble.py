"""An ensemble's members become ordinary fits: published, resumed, and refused in a line."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline_lib.__main__ import main
from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file, sha256_tree
from pipeline_lib.models.ndt.settings import Config
from pipeline_lib.training.fit import fit
from pipeline_lib.training.fit_ensemble import fit_ensemble
from pipeline_lib.training.run import FitError, Interrupted, Run, read_arrays
from tests.small_cohort import Cohort
from tests.training.test_ensemble import SEEDS, SMALL, Failing


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def folders(out: Path, seeds: list[int] = SEEDS) -> list[Path]:
    return [out / f"seed{seed}" for seed in seeds]


def settings(config: Config) -> dict:
    names = ("layers", "hidden", "read_in", "steps", "warmup", "evaluate_every", "batch", "learning_rate")
    return {name: getattr(config, name) for name in names}


def test_members_are_published_as_ordinary_fits(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_ensemble(*cohort, "mine", "ndt", settings(SMALL), SEEDS, folders(tmp_path / "ndt"))
    for seed in SEEDS:
        folder, alone = tmp_path / f"ndt/seed{seed}", tmp_path / f"alone{seed}"
        fit(*cohort, "mine", "ndt", settings(SMALL), seed, alone)
        assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
        assert not {".resume"} & {path.name for path in folder.iterdir()}
        made, expected = (json.loads((each / "manifest.json").read_text()) for each in (folder, alone))
        differing = {"code", "key", "sha256"}
        assert {name: made[name] for name in made.keys() - differing} == {
            name: expected[name] for name in expected.keys() - differing
        }
        for own, other in zip(history(folder), history(alone), strict=True):
            assert own == pytest.approx(other, rel=2e-5)
        ours, theirs = (read_arrays(each / "model.safetensors")[0] for each in (folder, alone))
        assert ours.keys() == theirs.keys()
    before = sha256_tree(tmp_path / "ndt")
    fit_ensemble(*cohort, "mine", "ndt", settings(SMALL), SEEDS, folders(tmp_path / "ndt"))  # nothing to do
    assert sha256_tree(tmp_path / "ndt") == before
    # Another seed is trained alone; those that are there are not touched.
    more = [*SEEDS, 9]
    fit_ensemble(*cohort, "mine", "ndt", settings(SMALL), more, folders(tmp_path / "ndt", more))
    assert (tmp_path / "ndt/seed9/manifest.json").is_file()
    told = [json.loads((tmp_path / f"ndt/seed{seed}/run.json").read_text()) for seed in more]
    assert [(each["seed"], each["seeds_together"]) for each in told] == [(0, 3), (3, 3), (7, 3), (9, 1)]


def test_the_verb_takes_a_folder_for_each_seed(cohort: Cohort, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    small = json.dumps(settings(replace(SMALL, steps=2)))
    common = ["fit", "--trains", *map(str, cohort[0]), "--split", str(cohort[1]), "--model", "ndt", "--settings", small]
    out = [str(folder / "manifest.json") for folder in folders(tmp_path, [0, 1])]  # as rules name them
    assert main([*common, "--seed", "0", "1", "--out", *out]) == 0
    assert [json.loads(Path(each).read_text())["seed"] for each in out] == [0, 1]
    assert main([*common, "--seed", "0", "1", "--out", out[0]]) == 2
    assert "seeds: found [0, 1]; accepted: each once, a folder for each (1 given)" in capsys.readouterr().err


def test_asked_to_stop_between_two_members_it_goes_on_to_the_same_bytes(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is published, the other not: the training is not repeated without the first."""
    fit_ensemble(*cohort, "ndt", "ndt", settings(SMALL), [0, 1], folders(tmp_path / "undisturbed", [0, 1]))
    stop = Run.stop_if_asked

    def interrupt(run: Run) -> None:
        if (tmp_path / "stopped/seed0/manifest.json").exists() and not interrupted:
            interrupted.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        stop(run)

    interrupted: list[bool] = []
    monkeypatch.setattr(Run, "stop_if_asked", interrupt)
    with pytest.raises(Interrupted):
        fit_ensemble(*cohort, "ndt", "ndt", settings(SMALL), [0, 1], folders(tmp_path / "stopped", [0, 1]))
    assert not (tmp_path / "stopped/seed1/manifest.json").exists()
    monkeypatch.setattr("pipeline_lib.training.ensemble.Ensemble._step", None)  # all steps are made
    fit_ensemble(*cohort, "ndt", "ndt", settings(SMALL), [0, 1], folders(tmp_path / "stopped", [0, 1]))
    for seed in (0, 1):
        for name in ("model.safetensors", "history.csv"):
            first, second = (tmp_path / folder / f"seed{seed}" / name for folder in ("stopped", "undisturbed"))
            assert first.read_bytes() == second.read_bytes()


def test_a_member_that_fails_is_named_and_the_others_are_published(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Failing):
        loss_fails: ClassVar = {3: 1}

    monkeypatch.setattr("pipeline_lib.training.ensemble.Ensemble", Fails)
    with pytest.raises(FitError, match=r"^seed 3: loss or gradient is nan at step 2"):
        fit_ensemble(*cohort, "ndt", "ndt", settings(replace(SMALL, steps=4)), SEEDS, folders(tmp_path))
    assert [(folder / "manifest.json").exists() for folder in folders(tmp_path)] == [True, False, True]


@pytest.mark.slow
def test_sigkill_of_a_real_process(cohort: Cohort, tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen:
        stores, config = [str(each) for each in cohort[0]], settings(replace(SMALL, steps=120, evaluate_every=20))
        program = (
            "import torch; torch.set_num_threads(1)\nfrom pipeline_lib.training.fit_ensemble import fit_ensemble\n"
            f"fit_ensemble({stores}, {str(cohort[1])!r}, 'ndt', 'ndt', {config}, [0, 1],"
            f" {[str(each) for each in folders(out, [0, 1])]}, checkpoint_seconds=0.02)"
        )
        return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)

    process = start(tmp_path / "undisturbed")
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    process = start(tmp_path / "killed")
    while process.poll() is None and not list((tmp_path / "killed/seed0/.resume").glob("*.safetensors")):
        time.sleep(0.01)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL, process.stderr.read().decode()
    process = start(tmp_path / "killed")
    assert process.wait(timeout=300) == 0, process.stderr.read().decode()
    for seed in (0, 1):
        for name in ("model.safetensors", "history.csv"):
            first, second = (tmp_path / folder / f"seed{seed}" / name for folder in ("killed", "undisturbed"))
            assert sha256_file(first) == sha256_file(second)


@pytest.mark.parametrize(
    ("model", "seeds", "message"),
    [
        ("ndt", [], "seeds: found"),
        ("ndt", [1, 1], "seeds: found"),
        ("neuroformer", [0, 1], "model: found neuroformer; accepted: one whose seeds train together: lfads, ndt"),
        ("psth", [0, 1], "model: found psth; accepted: one whose seeds train together: lfads, ndt"),
    ],
)
def test_what_cannot_be_an_ensemble_is_refused(
    cohort: Cohort, tmp_path: Path, model: str, seeds: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_ensemble(*cohort, model, model, {}, seeds, folders(tmp_path / "out", seeds))
    assert not (tmp_path / "out").exists()
