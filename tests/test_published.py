"""What was published and has been damaged since is named, and nobody scores, averages, exports or loads it."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline_lib.__main__ import main
from tests.small_cohort import write_fits

CHUNK, ROOT = "predictions.zarr/small/rates/c/0/0/0", "predictions.zarr/zarr.json"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("project") / "results"
    write_fits(results, ["psth"], (0, 1))
    return results


@pytest.fixture
def results(fitted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fitted, tmp_path / "results"))


def flip(file: Path) -> None:
    """One bit, in the middle, as a disk loses it."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def read(verb: str, results: Path) -> int:
    """Have a verb read the fit; its exit code."""
    fit = results / "fits/small/psth/seed0"
    data = ["--trains", results / "trains/small", "--split", results / "splits/small.parquet"]
    arguments = {
        "evaluate": ["evaluate", "--fit", fit, *data, "--recordings", results / "recordings/small", "--resamples", 0],
        "average": ["average", "--fit", fit, fit.with_name("seed1")],
        "nlb": ["export", "nlb", "--fit", fit, *data],
        "brain_wide_bench": ["export", "brain_wide_bench", "--fit", fit, *data],
        "predict": ["predict", "--fit", fit, *data],
    }[verb]
    return main([str(each) for each in [*arguments, "--out", results / "out"]])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize(
    ("verb", "file"),
    [
        *[(verb, CHUNK) for verb in ("evaluate", "average", "nlb", "brain_wide_bench")],
        ("evaluate", ROOT),
        ("predict", "model.safetensors"),
    ],
)
def test_a_damaged_fit_is_named_and_not_read(results: Path, capsys, damage, verb: str, file: str) -> None:
    damage(results / "fits/small/psth/seed0" / file)
    assert read(verb, results) == 2
    (error,) = capsys.readouterr().err.splitlines()
    place = results / "fits/small/psth/seed0" / Path(file).parts[0]
    assert error.startswith(f"error: {place}: content: found bytes that do not agree with their hash")
    assert "remove its folder" in error
    assert not [each for each in results.rglob("out/*") if each.name != ".lock"] and not (results / "out").is_file()


@pytest.mark.parametrize("verb", ["evaluate", "average", "nlb", "predict"])
def test_a_damaged_manifest_is_named(results: Path, capsys, verb: str) -> None:
    cut(results / "fits/small/psth/seed0/manifest.json")
    assert read(verb, results) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "psth/seed0/manifest.json: content: found" in error and "remove its folder" in error


@pytest.mark.parametrize("damage", [flip, cut])
def test_no_figure_shows_damaged_predictions(results: Path, capsys, damage) -> None:
    fit = results / "fits/small/psth/seed0"
    damage(fit / CHUNK)
    paths = {"recording": "recordings/small", "trains": "trains/small", "split": "splits/small.parquet"}
    paths = {name: str(results / path) for name, path in paths.items()} | {"fits": [str(fit)]}
    assert main(["figure", "raster_rates", "--paths", json.dumps(paths), "--out", str(results / "figures")]) == 2
    assert f"{fit / 'predictions.zarr'}: content: found bytes" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["collect", "figure", "report"])
def test_a_damaged_table_of_scores_is_named(results: Path, capsys, verb: str) -> None:
    assert read("evaluate", results) == 0
    table = results / "out"
    cut(table)
    arguments = {
        "collect": ["collect", table],
        "figure": ["figure", "score_table", "--paths", json.dumps({"metrics": str(table)})],
        "report": ["report", "--results", results, "--metrics", table],
    }[verb]
    capsys.readouterr()
    assert main([str(each) for each in [*arguments, "--out", results / "made"]]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {table}: table: found ")


def test_further_predictions_are_looked_at_too(results: Path, capsys) -> None:
    """A submission's rates of the training part lie in a folder of their own."""
    assert read("predict", results) == 0
    train = results / "out"
    data = ["--trains", results / "trains/small", "--split", results / "splits/small.parquet", "--train", train]
    arguments = ["export", "nlb", "--fit", results / "fits/small/psth/seed0", *data, "--out", results / "made.h5"]
    flip(train / CHUNK)
    assert main([str(each) for each in arguments]) == 2
    assert f"{train / 'predictions.zarr'}: content: found bytes" in capsys.readouterr().err


def test_a_fit_of_damaged_trains_says_so(results: Path, capsys) -> None:
    cut(results / "trains/small/manifest.json")
    data = ["--trains", results / "trains/small", "--split", results / "splits/small.parquet"]
    assert main([str(each) for each in ["fit", *data, "--model", "psth", "--out", results / "out"]]) == 2
    assert "trains/small/manifest.json: content: found" in capsys.readouterr().err


def test_a_search_whose_score_is_damaged_says_so(results: Path, tmp_path: Path, capsys) -> None:
    search = tmp_path / "search.yaml"
    space = {"log_offset": {"uniform": [0.1, 1]}}
    search.write_text(json.dumps({"model": "smoothing", "kind": "random", "members": 1, "space": space}))
    trial = results / "out/generation00/member00"
    trial.mkdir(parents=True)
    (trial / "score.json").write_text('{"key"')
    data = ["--trains", results / "trains/small", "--split", results / "splits/small.parquet"]
    assert main([str(each) for each in ["search", *data, "--search", search, "--out", results / "out"]]) == 2
    assert f"{trial / 'score.json'}: content: found" in capsys.readouterr().err
