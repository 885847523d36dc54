"""Sessions and cohorts that a changed setting has left behind: what was made with the one before."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.files import sha256_file
from pipeline_lib.made_with import beside, read_made_with, told, write_made_with
from pipeline_lib.outdated import outdated_fits
from pipeline_lib.outdated_data import OutdatedData, outdated_data
from pipeline_lib.overview import overview
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan, resolve

SIMULATION = {"simulator": "eif", "layout": "allen", "settings": {"trials": 40}}
CONFIG: dict[str, Any] = {
    "models": ["glm", "psth"],
    "seeds": [0, 1],
    "simulations": {"pair": SIMULATION},
    "cohorts": {"both": {"sessions": ["day1", "day2"], "models": ["glm"]}},
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """A configuration whose results are all there, made with its settings."""
    for name in ("spikes.csv", "trials.csv", "parts.csv"):
        (tmp_path / name).write_text("time,unit\n")
    rows = "day1\ttables\tspikes.csv\ttrials: trials.csv\nday2\tallen\tsimulated:pair\t\n"
    (tmp_path / "sheet.tsv").write_text(f"session\tsource\tlocation\toptions\n{rows}")
    config = CONFIG | {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path)}
    parts = {"scheme": "file", "file": str(tmp_path / "parts.csv")}
    config |= {"results": str(tmp_path / "results"), "cohorts": {"both": CONFIG["cohorts"]["both"] | {"splits": parts}}}
    plan = resolve(config)
    paths = Paths(plan.config.results, plan.config.data)
    for name, simulation in plan.config.simulations.items():
        made(plan, paths.simulation(name), [], simulation.model_dump(exclude={"settings"}), told(simulation.settings))
    for name, session in plan.sessions.items():
        files = [paths.simulation("pair")] if session.simulation else [session.location, str(tmp_path / "trials.csv")]
        made(plan, paths.recording(name), files, session.source, told(session.options), "location", "code")
        made(plan, paths.trains(name), [paths.recording(name)], plan.config.counts, "code")
    for name, cohort in plan.cohorts.items():
        files = [*map(paths.trains, cohort.sessions), *filter(None, [cohort.splits.file])]
        made(plan, paths.split(name), files, json.dumps(asdict(cohort.windows)), json.dumps(asdict(cohort.splits)))
    for fit in plan.fits:
        made(plan, paths.fit(*fit), [])
        Path(paths.fit(*fit)).write_text("{}")
    return config


def made(plan: Plan, file: str, inputs: list[str], *parameters: Any) -> None:
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(f"made as {file}")
    sums = {each: f"sha256:{sha256_file(each)}" for each in inputs}
    record = {"params": sorted(map(repr, parameters)), "input": inputs, "input_checksums": sums}
    write_made_with(file, record, plan.config.results)


def edit(file: Path, text: str) -> None:
    """Write it, an hour from now."""
    file.write_text(text)
    os.utime(file, (moment := time.time() + 3600, moment))


def listed(config: dict[str, Any]) -> list[list[str]]:
    return [line.split() for line in overview(resolve(config)).splitlines() if line]


def test_what_was_made_with_these_settings_is_done(config: dict[str, Any]) -> None:
    lines = listed(config)
    assert lines[0] == ["session", "source", "recording", "trains"]
    assert lines[1:3] == [["day1", "tables", "done", "done"], ["day2", "allen", "done", "done"]]
    assert lines[4:7] == [["day1", "1", "2/2", "2/2"], ["day2", "1", "2/2", "2/2"], ["both", "2", "2/2"]]
    assert lines[7:] == [["10", "of", "10", "fits", "done"]]


@pytest.mark.parametrize(
    ("change", "recordings", "trains", "cohorts"),
    [
        ({"counts": [20]}, "", "day1 day2", ""),
        ({"sources": {"tables": {"unit": "id"}}}, "day1", "day1", "both day1"),
        ({"simulations": {"pair": SIMULATION | {"seed": 3}}}, "day2", "day2", "both day2"),
        ({"simulations": {"pair": SIMULATION | {"settings": {}}}}, "day2", "day2", "both day2"),
        ({"windows": {"bin_size": 10}}, "", "", "both day1 day2"),
        ({"splits": {"fractions": [0.6, 0.2, 0.2]}}, "", "", "both day1 day2"),
        ({"cohorts": {"both": CONFIG["cohorts"]["both"] | {"splits": {"seed": 1}}}}, "", "", "both"),
    ],
)
def test_a_changed_setting_outdates_what_follows_from_it(
    config: dict[str, Any], change: dict[str, Any], recordings: str, trains: str, cohorts: str
) -> None:
    plan = resolve(config | change)
    paths = Paths(plan.config.results, plan.config.data)
    found = outdated_data(plan, paths)
    assert [sorted(each) for each in (found.recordings, found.trains, found.cohorts)] == [
        each.split() for each in (recordings, trains, cohorts)
    ]
    assert outdated_fits(plan, paths) == {fit for fit in plan.fits if fit[0] in cohorts.split()}


def test_the_lists_say_so(config: dict[str, Any]) -> None:
    lines = listed(config | {"sources": {"tables": {"unit": "id"}}, "counts": [20]})
    assert [line[2:] for line in lines[1:3]] == [["outdated", "outdated"], ["done", "outdated"]]
    assert [line[2:] for line in lines[4:7]] == [["0/2", "0/2"], ["2/2", "2/2"], ["0/2"]]
    assert lines[7][:7] == ["4", "of", "10", "fits", "done;", "6", "more"]


@pytest.mark.parametrize(
    ("file", "recordings", "trains", "cohorts"),
    [
        ("spikes.csv", "day1", "day1", "both day1"),
        ("trials.csv", "day1", "day1", "both day1"),
        ("results/simulated/pair/simulation.json", "day2", "day2", "both day2"),
        ("results/recordings/day2/recording.json", "", "day2", "both day2"),
        ("parts.csv", "", "", "both"),
    ],
)
def test_an_edited_file_outdates_what_follows_from_it(
    config: dict[str, Any], tmp_path: Path, file: str, recordings: str, trains: str, cohorts: str
) -> None:
    """A table of the user's, or what a run made anew that was ended then; not one that was saved again as it was."""
    plan = resolve(config)
    paths = Paths(plan.config.results, plan.config.data)
    text = (tmp_path / file).read_text()
    edit(tmp_path / file, text)
    assert outdated_data(plan, paths) == OutdatedData(frozenset(), frozenset(), frozenset())
    edit(tmp_path / file, text + "\n")
    if (told := beside(tmp_path / file)).exists():
        write_made_with(tmp_path / file, json.loads(told.read_text()), plan.config.results)
    found = outdated_data(plan, paths)
    assert [sorted(each) for each in (found.recordings, found.trains, found.cohorts)] == [
        each.split() for each in (recordings, trains, cohorts)
    ]


def test_the_list_looks_at_each_record_once(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def read(file: str, results: str) -> Any:
        looked.append(file)
        return read_made_with(file, results)

    monkeypatch.setattr("pipeline_lib.outdated_data.read_made_with", read)
    listed(config)
    plan = resolve(config)
    paths = Paths(plan.config.results, plan.config.data)
    assert looked.count(paths.simulation("pair")) == looked.count(paths.split("both")) == 1


def test_of_a_large_file_that_is_newer_nothing_is_known(config: dict[str, Any], tmp_path: Path) -> None:
    """Snakemake keeps no sum of it, and reads it once more."""
    record = beside(tmp_path / "results/recordings/day1/recording.json")
    record.write_text(record.read_text().replace("input_checksums", "none"))
    assert listed(config)[1][2:] == ["done", "done"]
    edit(tmp_path / "spikes.csv", (tmp_path / "spikes.csv").read_text())
    assert listed(config)[1][2:] == ["outdated", "outdated"]


def test_a_file_more_or_less_is_another_recording(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "truth.zarr").mkdir()
    (tmp_path / "truth.zarr/zarr.json").touch()
    os.utime(tmp_path / "truth.zarr/zarr.json", (0, 0))
    assert listed(config)[1][2:] == ["outdated", "outdated"]


def test_what_cannot_be_found_is_left_to_the_check(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "trials.csv").unlink()
    assert listed(config)[1][2:] == ["done", "done"]


def test_what_is_not_there_is_not_outdated(config: dict[str, Any], tmp_path: Path) -> None:
    for each in ("recordings/day1/recording.json", "trains/day2/manifest.json"):
        (tmp_path / "results" / each).unlink()
    lines = listed(config | {"sources": {"tables": {"unit": "id"}}, "counts": [20]})
    assert [line[2:] for line in lines[1:3]] == [["-", "outdated"], ["done", "-"]]


def test_what_says_nothing_is_taken_as_right(config: dict[str, Any], tmp_path: Path) -> None:
    for number, file in enumerate(sorted((tmp_path / "results").rglob("*.made_with.json"))):
        file.write_text(["", '{"params": []}', "{"][number % 3])
    lines = listed(config | {"windows": {"bin_size": 10}, "counts": [20]})
    assert lines[1:3] == [["day1", "tables", "done", "done"], ["day2", "allen", "done", "done"]]
    assert lines[7] == ["10", "of", "10", "fits", "done"]
