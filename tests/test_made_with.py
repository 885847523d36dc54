"""What a result was made with, kept beside it, and what differs of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.made_with import REPLACED, beside, difference, read_made_with, unpacked, write_made_with

RECORD = {
    "rule": "fit",
    "params": ["'{}'"],
    "input": ["data/z.csv", "results/splits/a.parquet", "results2/b"],
    "input_checksums": {"results/splits/a.parquet": "sha256:12"},
}


def test_a_figure_has_one_for_all_its_files() -> None:
    names = {beside(f"results/figures/psth.{ending}").as_posix() for ending in ("png", "pdf", "csv")}
    assert names == {"results/figures/.psth.made_with.json"}


def test_it_is_read_as_of_the_folder_that_it_is_in(tmp_path: Path) -> None:
    """Inputs in the order that Snakemake compares them in."""
    (tmp_path / "fit.json").touch()
    write_made_with(tmp_path / "fit.json", RECORD, "results")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fit.made_with.json", "fit.json"]
    assert read_made_with(tmp_path / "fit.json", "results") == RECORD
    moved = read_made_with(tmp_path / "fit.json", "a/b")
    assert moved is not None
    assert moved["input"] == ["a/b/splits/a.parquet", "data/z.csv", "results2/b"]
    assert moved["input_checksums"] == {"a/b/splits/a.parquet": "sha256:12"}


@pytest.mark.parametrize(("name", "seen"), [("manifest.json", True), ("a.parquet", True), ("psth.png", False)])
def test_a_file_that_was_replaced_was_made_with_nothing_known(tmp_path: Path, name: str, seen: bool) -> None:
    """A figure shares its record with two other files, and is not looked at."""
    (tmp_path / name).write_text("as it was made")
    write_made_with(tmp_path / name, RECORD, "results")
    assert read_made_with(tmp_path / name, "results") == RECORD
    (tmp_path / name).write_text("by hand")
    replaced = RECORD | {"params": [repr(REPLACED)]}
    assert read_made_with(tmp_path / name, "results") == (replaced if seen else RECORD)
    assert difference([repr(REPLACED)], RECORD["params"]) == REPLACED


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"params": "x"}', '{"params": ["1"], "input": 3}', "\xff"])
def test_what_cannot_be_read_is_none(tmp_path: Path, content: str) -> None:
    beside(tmp_path / "fit.json").write_text(content, encoding="latin-1")
    assert read_made_with(tmp_path / "fit.json", "results") is None
    assert read_made_with(tmp_path / "other.json", "results") is None


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("[1, 2]", [1, 2]),
        ("'{not json'", "{not json"),
        ("<object>", "<object>"),
        ("{1: '{\"a\": null}'}", {"1": {"a": None}}),
    ],
)
def test_parameters_are_read_with_the_json_in_them(parameter: str, value: Any) -> None:
    assert unpacked(parameter) == value


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"a": {"b": [1], "c": 2}}, {"a": {"b": [1], "c": 3}}, "a.c: 2, now 3"),
        ({"a": 1, "b": None}, {"b": None, "c": 1}, "a: 1, now not set; c: not set, now 1"),
        ({"a": 1}, {"a": None}, "a: 1, now null"),
        ({"a": 1}, {"a": 1, "b": None}, "b: not set, now null"),
        ({"a": "x" * 99}, {"a": {}}, f"a: {'x' * 57}..., now {{}}"),
        ({"a": "x" * 99 + "y"}, {"a": "x" * 99 + "z"}, f"a: {'x' * 57}..., now {'x' * 57}..."),
        ("ab" * 32, "cd" * 32, "code: abababababab, now cdcdcdcdcdcd"),
        ([1], [1, 2], "parameters: [1], now [1, 2]"),
        ("--resamples 50", "--resamples 60", "parameters: --resamples 50, now --resamples 60"),
    ],
)
def test_what_differs_is_told_in_a_line(before: Any, now: Any, told: str) -> None:
    """As a value, and as JSON in one."""
    assert difference([repr(before)], [repr(now)]) == told
    if isinstance(before, dict):
        assert difference([repr({"s": json.dumps(before)})], [repr({"s": json.dumps(now)})]) == "; ".join(
            f"s.{part}" for part in told.split("; ")
        )


def test_of_several_parameters_each_is_told_that_differs() -> None:
    before, now = ["'{\"folds\": 5}'", repr("ab" * 32)], ["'{\"folds\": 3}'", repr("cd" * 32)]
    assert difference(before, now) == "code: abababababab, now cdcdcdcdcdcd; folds: 5, now 3"
    assert difference(["'a'"], ["'b'", "'c'"]) == "parameters: a, now b, c"
    assert difference(["'a'"], []) == "parameters: a, now not set"
