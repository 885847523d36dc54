"""A source that is a Python file of the user's."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.plan import resolve
from pipeline_lib.sources import check_options, read_source, session_files, source_code

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/npy_folder.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two units of three spikes each, the second one faster, and two trials."""
    session = tmp_path / "day1"
    session.mkdir()
    np.save(session / "times_b7.npy", [100.0, 150.0, 200.0])
    np.save(session / "times_a3.npy", [50.0, 900.0, 2500.0])
    np.save(session / "trials.npy", [[0.0, 1.0], [1500.0, -1.0]])
    return session


def test_a_file_is_a_source(folder: Path) -> None:
    recording = read_source(str(EXAMPLE), "day1", folder, {"region": "CA1"})
    assert recording.units["unit_id"].tolist() == ["a3", "b7"] and set(recording.units["region"]) == {"CA1"}
    assert recording.spike_times.tolist() == [0.05, 0.1, 0.15, 0.2, 0.9, 2.5]
    assert recording.spike_units.tolist() == [0, 1, 1, 1, 0, 0]
    assert recording.trials["condition"].tolist() == ["right", "left"]
    assert recording.provenance.selection == {"region": "CA1"} and len(recording.provenance.files) == 3
    assert source_code(str(EXAMPLE)) == EXAMPLE and source_code("nwb") == "pipeline_lib.sources.nwb"
    fast = read_source(str(EXAMPLE), "day1", folder, {"max_units": 1, "trial": 0.5})
    assert len(fast.units) == 1 and fast.trials["stop"].tolist() == [0.5, 2.0]


def test_what_it_reads_is_the_folder_or_what_it_says(folder: Path, tmp_path: Path) -> None:
    assert len(session_files(str(EXAMPLE), folder)) == 3
    own = tmp_path / "own.py"
    said = "\ndef locate(location):\n    return location / 'times_a3.npy'\n"
    own.write_text(EXAMPLE.read_text() + said)
    assert [file.name for file in session_files(str(own), folder)] == ["times_a3.npy"]
    own.write_text(
        own.read_text() + "\ndef files(location, options):\n    return [location, location.parent / 'trials.npy']\n"
    )
    assert [file.name for file in session_files(str(own), folder)] == ["times_a3.npy", "trials.npy"]


def test_what_is_wrong_with_it_is_one_line(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    with pytest.raises(InputError, match=r"no file .*own\.py; accepted: the Python file of a source"):
        check_options(str(own))
    for text, message in (
        ("def read(:", r"own\.py: import: found"),
        ("import nothing_of_that_name", r"own\.py: import: found No module"),
        ("class Options: pass", r"own\.py: read: found nothing; accepted: `Options` and `read`"),
        ("def read(*given): pass", r"own\.py: Options: found nothing"),
    ):
        own.write_text(text)
        with pytest.raises(InputError, match=message):
            check_options(str(own))
    with pytest.raises(InputError, match=r"option regoin: found an unknown key; accepted: did you mean 'region'"):
        check_options(str(EXAMPLE), {"regoin": "CA1"})
    with pytest.raises(InputError, match=r"location: found no such file or folder"):
        read_source(str(EXAMPLE), "day1", folder / "nowhere")
    with pytest.raises(InputError, match=r"did you mean 'nwb'\? \(or the path of a Python file\)"):
        check_options("nwbb")


def test_its_own_faults_are_told_with_their_line(folder: Path, tmp_path: Path) -> None:
    own, text = tmp_path / "own.py", EXAMPLE.read_text()
    for before, after, message in (
        (
            "start = start / 1000",
            "start = {}['start']",
            r"own\.py: line \d+: found KeyError: 'start'; accepted: a Recording of",
        ),
        ("return select(", "return None and (", r"own\.py: read: found NoneType; accepted: a Recording of .*day1"),
        ("start + options.trial", "start - options.trial", r"trials"),
    ):
        own.write_text(text.replace(before, after))
        with pytest.raises(InputError, match=message):
            read_source(str(own), "day1", folder)
    (folder / "trials.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"trials\.npy"):
        read_source(str(EXAMPLE), "day1", folder)


def test_a_plan_takes_it_and_its_options(folder: Path, tmp_path: Path) -> None:
    own = shutil.copy(EXAMPLE, tmp_path / "own.py")
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text(f"session\tsource\tlocation\toptions\nday1\t{own}\tday1\tregion: CA1\n")
    config = {"sessions": str(sheet), "data": str(tmp_path), "sources": {str(own): {"trial": 2.0}}}
    session = resolve(config).sessions["day1"]
    assert (session.source, session.options) == (str(own), {"trial": 2.0, "region": "CA1"})
    with pytest.raises(InputError, match="option trial"):
        resolve(config | {"sources": {str(own): {"trial": "long"}}})
