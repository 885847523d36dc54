"""A fit as a whole: what it publishes, and what it is after everything that can happen to a process."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
import zarr

from pipeline_lib.evaluation.evaluate import Scoring, evaluate
from pipeline_lib.files import sha256_file, sha256_tree, write_json
from pipeline_lib.models.contract import LeakageError
from pipeline_lib.models.registry import check_config
from pipeline_lib.training import publication as module
from pipeline_lib.training.fit import fit, load_fit
from pipeline_lib.training.predict import predict
from pipeline_lib.training.publication import identity
from pipeline_lib.training.run import FitError, read_arrays
from tests.small_cohort import SPLITS, UNITS, WINDOWS, Cohort, open_cohort, recording, write_cohort

WALKER = str(Path(__file__).with_name("walker.py"))
PUBLISHED = {"model.safetensors", "config.yaml", "history.csv", "run.json", "predictions.zarr", "manifest.json"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return write_cohort(tmp_path_factory.mktemp("cohort"), made=[recording(trials=30)])


@pytest.fixture(scope="module")
def undisturbed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed")
    walk(cohort, out)
    return contents(out)


def walk(cohort: Cohort, out: Path, seed: int = 0, code: str = "", **config: object) -> None:
    """Fit the walker in this process, with a checkpoint at every step."""
    fit(*cohort, "walker", WALKER, config, seed, out, code=code, checkpoint_seconds=0)


def start_walk(cohort: Cohort, out: Path, **environment: object) -> subprocess.Popen:
    """The same in a process of its own."""
    stores, split = cohort
    program = (
        "from pipeline_lib.training.fit import fit\n"
        f"fit({[str(each) for each in stores]}, {str(split)!r}, 'walker', {WALKER!r}, {{}}, 0, {str(out)!r},"
        " checkpoint_seconds=0)"
    )
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.Popen([sys.executable, "-c", program], env=variables, stderr=subprocess.PIPE, text=True)


def contents(out: Path) -> dict[str, str]:
    """Hashes of everything that was published but run.json, which holds times."""
    entries = [entry for entry in out.iterdir() if entry.name in PUBLISHED - {"run.json"}]
    return {entry.name: sha256_tree(entry) if entry.is_dir() else sha256_file(entry) for entry in entries}


# What is published


def test_everything_is_published_and_nothing_else(cohort: Cohort, tmp_path: Path) -> None:
    walk(cohort, tmp_path, seed=3)
    assert {entry.name for entry in tmp_path.iterdir()} == PUBLISHED | {".lock", ".made.json"}
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["sha256"] == {
        "model.safetensors": sha256_file(tmp_path / "model.safetensors"),
        "predictions.zarr": sha256_tree(tmp_path / "predictions.zarr"),
    }
    assert manifest["trains"] == {"small0": json.loads((cohort[0][0] / "manifest.json").read_text())["content_hash"]}
    assert (manifest["model"], manifest["seed"], manifest["sees"]) == ("walker", 3, "nothing")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"steps": 60, "spoil": ""}
    history = (tmp_path / "history.csv").read_text().splitlines()
    assert history[0] == "step,loss" and len(history) == 61
    facts = json.loads((tmp_path / "run.json").read_text())
    assert facts["seed"] == 3 and facts["device"] == "cpu" and facts["cpu_seconds"] >= 0
    assert facts["peak_memory_mb"] > 10 and facts["packages"]["numpy"] == np.__version__


def test_predictions(cohort: Cohort, tmp_path: Path) -> None:
    walk(cohort, tmp_path)
    data = open_cohort(*cohort)
    root = zarr.open_group(str(tmp_path / "predictions.zarr"), mode="r")
    assert dict(root.attrs) == {"model": "walker", "seed": 0, "sees": "nothing", "bin_size": 20.0}
    samples = data.split.samples.loc[root["small0/sample"][:]]
    assert set(samples["split"]) == {"validation", "test"}
    assert len(samples) == (data.split.samples["split"] != "train").sum()
    expected, _ = read_arrays(tmp_path / "model.safetensors")
    rates = root["small0/rates"]
    assert rates.dtype == np.float32 and rates.shape == (len(samples), 50, UNITS)
    np.testing.assert_array_equal(rates[:], np.broadcast_to(expected["small0"].astype(np.float32), rates.shape))
    assert root["small0/couplings/filters"].shape == (UNITS, UNITS, 4)
    assert root["small0/couplings/strength"].shape == (UNITS, UNITS)
    assert root["small0/couplings"].attrs["bin_size"] == 20.0


def test_ragged_windows_of_two_sessions(tmp_path: Path) -> None:
    made = [recording("a", seed=1, trials=100, units=5), recording("b", seed=2, trials=30)]
    for each in made:
        each.trials["stop"] -= np.linspace(0, 0.5, len(each.trials))
    cohort = write_cohort(tmp_path, replace(WINDOWS, after=None), SPLITS, made)
    fit(*cohort, "mean_rate", "mean_rate", {}, 0, tmp_path / "fit")
    data = open_cohort(*cohort)
    root = zarr.open_group(str(tmp_path / "fit" / "predictions.zarr"), mode="r")
    for session, units in (("a", 5), ("b", UNITS)):
        rates, ids = root[session]["rates"][:], root[session]["sample"][:]
        samples = data.split.samples.loc[ids]
        assert (samples["session"] == session).all() and rates.shape[2] == units
        bins = samples["bins"].to_numpy()
        assert len(set(bins)) > 5
        np.testing.assert_array_equal(np.isfinite(rates).all(axis=2).sum(axis=1), bins)
        np.testing.assert_array_equal(np.isnan(rates).all(axis=2), np.arange(rates.shape[1]) >= bins[:, None])


@pytest.mark.parametrize("name", ["mean_rate", "psth", "smoothing"])
def test_baselines_publish_the_same_bytes_twice_and_load_again(cohort: Cohort, tmp_path: Path, name: str) -> None:
    for out in ("one", "two"):
        fit(*cohort, name, name, {}, 0, tmp_path / out)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    data = open_cohort(*cohort)
    root = zarr.open_group(str(tmp_path / "one" / "predictions.zarr"), mode="r")
    samples = data.split.samples.loc[root["small0/sample"][:]]
    again = load_fit(tmp_path / "one").predict(data, "small0", samples)
    np.testing.assert_array_equal(again, root["small0/rates"][:])


def test_nothing_is_done_twice(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("WALKER_NOTES", str(notes))
    out = tmp_path / "out"
    walk(cohort, out)
    walk(cohort, out)
    walk(cohort, out, steps=60)  # the default, said aloud
    assert len(notes.read_text().splitlines()) == 1
    for number, change in enumerate(({"seed": 1}, {"code": "other"}, {"steps": 61}), start=2):
        walk(cohort, out, **change)
        assert len(notes.read_text().splitlines()) == number
    assert load_fit(out, WALKER).seed == 0
    stores, _ = cohort
    others, another = write_cohort(tmp_path, splits=replace(SPLITS, seed=5), made=[recording(seed=1, trials=30)])
    for number, data in enumerate(((stores, another), (others, another)), start=5):
        walk(data, out, steps=61)
        assert len(notes.read_text().splitlines()) == number


def test_whatever_a_fit_depends_on_is_in_its_name(cohort: Cohort, tmp_path: Path) -> None:
    (stores, split), settings = cohort, check_config("psth", {})
    others, another = write_cohort(tmp_path, splits=replace(SPLITS, seed=5), made=[recording(seed=1, trials=30)])
    changes = [(), (others,), (stores, another), (stores, split, "mean_rate")]
    changes += [(stores, split, "psth", replace(settings, smoothing=(30.0,))), (stores, split, "psth", settings, 1)]
    changes.append((stores, split, "psth", settings, 0, "other code"))
    defaults = (stores, split, "psth", settings, 0, "code")
    names = [identity(*change, *defaults[len(change) :])["key"] for change in changes]
    assert len(set(names)) == len(changes) and identity(*defaults)["key"] == names[0]


def test_a_fit_whose_manifest_snakemake_took_away_is_not_made_again(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it does where something upstream was made anew, to the same bytes."""
    notes, out = tmp_path / "notes", tmp_path / "out"
    monkeypatch.setenv("WALKER_NOTES", str(notes))
    walk(cohort, out)
    whole, run = contents(out), (out / "run.json").read_bytes()
    (out / "manifest.json").unlink()
    walk(cohort, out)
    assert contents(out) == whole and (out / "run.json").read_bytes() == run
    assert "nothing to do (remove the folder" in capsys.readouterr().err
    for number, damaged in enumerate(("model.safetensors", "predictions.zarr/zarr.json"), start=2):
        (out / "manifest.json").unlink()
        (out / damaged).write_bytes(b"damaged")
        walk(cohort, out)
        assert contents(out) == whole and len(notes.read_text().splitlines()) == number
    (out / "manifest.json").unlink()
    walk(cohort, out, seed=1)  # another one is made
    assert len(notes.read_text().splitlines()) == 4 and load_fit(out, WALKER).seed == 1


@pytest.mark.parametrize("damage", [b'{"key": "ab', b"\xff\xfe", b"[]", b'"key"', b"{}", "no sha256", "no mapping"])
def test_what_is_kept_of_a_manifest_may_be_damaged(cohort: Cohort, tmp_path: Path, damage: bytes | str) -> None:
    """Then there is no such fit, and it is made."""
    walk(cohort, tmp_path, steps=2)
    whole, kept = contents(tmp_path), json.loads((tmp_path / ".made.json").read_text())
    if damage == "no sha256":
        del kept["sha256"]
    elif damage == "no mapping":
        kept["sha256"] = list(kept["sha256"])
    (tmp_path / ".made.json").write_bytes(damage if isinstance(damage, bytes) else json.dumps(kept).encode())
    (tmp_path / "manifest.json").unlink()
    walk(cohort, tmp_path, steps=2)
    assert contents(tmp_path) == whole
    assert (tmp_path / ".made.json").read_bytes() == (tmp_path / "manifest.json").read_bytes()


def test_a_disk_that_fills_behind_the_manifest_fails_no_fit(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(path: Path, content: object) -> None:
        if path.name == ".made.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_json(path, content)

    monkeypatch.setattr(module, "write_json", full_disk)
    walk(cohort, tmp_path, steps=2)
    assert ".made.json was not written: No space left on device; the fit is whole" in capsys.readouterr().err
    assert contents(tmp_path).keys() == PUBLISHED - {"run.json"} and not (tmp_path / ".made.json").exists()
    assert not (tmp_path / ".resume").exists() and load_fit(tmp_path, WALKER).seed == 0


# What may happen to a process


def test_killed_and_run_again_gives_the_same_bytes(
    cohort: Cohort, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = start_walk(cohort, tmp_path / "out", WALKER_STOP_AT=37, WALKER_SIGNAL="SIGKILL")
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setenv("WALKER_NOTES", str(tmp_path / "notes"))
    walk(cohort, tmp_path / "out")
    assert (tmp_path / "notes").read_text() == "resumed at 38\n"
    assert contents(tmp_path / "out") == undisturbed
    assert not (tmp_path / "out" / ".resume").exists()


def test_killed_while_publishing(
    cohort: Cohort, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_predictions", cut)
        with pytest.raises(KeyboardInterrupt):
            walk(cohort, tmp_path)
    assert contents(tmp_path) == {}
    walk(cohort, tmp_path)
    assert contents(tmp_path) == undisturbed


def test_asked_to_stop_it_saves_and_says_so(cohort: Cohort, undisturbed: dict[str, str], tmp_path: Path) -> None:
    stopped = start_walk(cohort, tmp_path, WALKER_STOP_AT=20, WALKER_SIGNAL="SIGTERM")
    _, words = stopped.communicate()
    assert stopped.returncode == 143
    assert words.strip() == f"{tmp_path}: stopped as asked; the next run goes on from here"
    walk(cohort, tmp_path)
    assert contents(tmp_path) == undisturbed


def test_two_processes_on_one_directory(cohort: Cohort, undisturbed: dict[str, str], tmp_path: Path) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    first = start_walk(cohort, tmp_path / "out", WALKER_NOTES=notes, WALKER_GATE=gate)
    while not notes.exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = start_walk(cohort, tmp_path / "out", WALKER_NOTES=notes, WALKER_GATE=gate)
    assert "waiting: another process" in second.stderr.readline()
    gate.touch()
    for process in (first, second):
        process.communicate()
        assert process.returncode == 0
    assert notes.read_text() == "started at 0\n"
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("damage", ["cut", "flipped", "both"])
def test_damaged_checkpoints(
    cohort: Cohort,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("WALKER_FAIL_AT", "30")
        with pytest.raises(RuntimeError, match="as asked"):
            walk(cohort, tmp_path)
    checkpoints = sorted((tmp_path / ".resume").glob("*.safetensors"))
    last, previous = sorted(checkpoints, key=lambda file: "previous" in file.name)
    for file in (last, previous) if damage == "both" else (last,):
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content[:-9] if damage == "cut" else content)
    notes = tmp_path / "notes"
    monkeypatch.setenv("WALKER_NOTES", str(notes))
    walk(cohort, tmp_path)
    assert notes.read_text() == ("started at 0\n" if damage == "both" else "resumed at 30\n")
    assert f"{last}: unreadable, going back" in capsys.readouterr().err
    assert contents(tmp_path) == undisturbed


def test_a_checkpoint_of_other_settings_is_not_resumed(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WALKER_FAIL_AT", "30")
    with pytest.raises(RuntimeError):
        walk(cohort, tmp_path)
    monkeypatch.delenv("WALKER_FAIL_AT")
    monkeypatch.setenv("WALKER_NOTES", str(tmp_path / "notes"))
    walk(cohort, tmp_path, steps=50)
    assert (tmp_path / "notes").read_text() == "started at 0\n"
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 51


# What is refused


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("weights", ["walker", r"small0\[2\] is nan"]),
        ("rates", ["session small0", r"unit 2 \(u2\) is nan", "bin 3", "nothing was published"]),
        ("sign", [r"unit 2 \(u2\) is -1"]),
        ("shape", ["rates of shape"]),
    ],
)
def test_impossible_numbers_are_not_published(cohort: Cohort, tmp_path: Path, spoil: str, words: list[str]) -> None:
    fit(*cohort, "mean_rate", "mean_rate", {}, 0, tmp_path)
    before = contents(tmp_path)
    with pytest.raises(FitError) as caught:
        fit(*cohort, "walker", WALKER, {"spoil": spoil}, 0, tmp_path)
    for word in words:
        assert caught.match(word)
    assert contents(tmp_path) == before


def test_a_model_of_ones_own_is_fitted_without_the_test_part(cohort: Cohort, tmp_path: Path) -> None:
    own = tmp_path / "peeking.py"
    own.write_text(
        "from pipeline_lib.models.registry import load_model\n\n\n"
        "class Peeking(load_model('mean_rate')):\n"
        "    def fit(self, data, run):\n"
        "        data.counts(data.sessions[0], 'test')\n\n\n"
        "MODEL = Peeking\n"
    )
    with pytest.raises(LeakageError):
        fit(*cohort, "peeking", str(own), {}, 0, tmp_path / "out")


def test_one_folder_stands_for_a_list_of_one(cohort: Cohort, tmp_path: Path) -> None:
    """Not for a list of its letters."""
    (store,), split = cohort
    for name, given in (("list", [store]), ("path", store), ("text", str(store))):
        fit(given, split, "mean_rate", "mean_rate", {}, 0, tmp_path / name)
        predict(tmp_path / name, given, split, tmp_path / f"train of {name}")
        evaluate(tmp_path / name, Scoring(given, split, [], resamples=0), tmp_path / f"{name}.parquet")
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("list", "path", "text")]
    assert manifests[0] == manifests[1] == manifests[2]
    first, *others = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("list", "path", "text"))
    assert len(first) and all(first.equals(other) for other in others)


def test_a_seed_that_numpy_counted_is_the_same_seed(cohort: Cohort, tmp_path: Path) -> None:
    for seed in (1, *np.arange(1, 2)):
        fit(*cohort, "psth", "psth", {}, seed, tmp_path / type(seed).__name__)
    one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("int", "int64"))
    assert one == other
