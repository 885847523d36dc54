"""Columns of text files as people and programs write them: read as they are meant, or refused by file and row."""

import pytest

from pipeline_lib.sources import read_source
from tests.sources.conftest import refuses


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("spikes.csv", "time,unit,time\n0.1,1,0.2\n", "time"),
        ("spikes.csv", "time,unit, unit\n0.1,1,2\n", "unit"),
        ("units.csv", "unit_id,region,region\n1,A,B\n", "region"),
        ("trials.csv", "start,stop,stop\n0,1,2\n", "stop"),
        ("trials.csv", "condition,start,stop,condition\na,0,1,b\n", "condition"),
        ("observed.csv", "start,stop,start\n0,1,2\n", "start"),
    ],
)
def test_a_column_that_is_used_stands_once(tmp_path, name, text, column):
    (tmp_path / "spikes.csv").write_text("time,unit,note,note\n0.1,1,x,y\n")
    assert len(read_source("tables", "s", tmp_path).spike_times) == 1, "what is not used may stand twice"
    (tmp_path / name).write_text(text)
    with refuses(f"{name}: header: found '{column}' twice"):
        read_source("tables", "s", tmp_path)


@pytest.mark.parametrize(
    ("name", "between", "own"),
    [("spikes.csv", ";", ","), ("spikes.csv", "\t", ","), ("spikes.csv", "|", ","), ("spikes.tsv", ",", "\t")],
)
def test_another_sign_between_values_is_named(tmp_path, name, between, own):
    (tmp_path / name).write_text(f"time{between}unit\n0.5{between}7\n")
    with refuses(f"{name}: header: found 1 names ('time", f"{own!r} between them"):
        read_source("tables", "s", tmp_path)


@pytest.mark.parametrize("found", ["n/a?", "1,003.25"])
def test_the_row_that_holds_no_number_is_named(tmp_path, found):
    """Not the first row, which holds one."""
    (tmp_path / "spikes.csv").write_text(f'time,unit\n0.5,7\n,7\n"{found}",7\n')
    with refuses(f"spikes.csv: column time, row 2: found {found!r}", "numbers"):
        read_source("tables", "s", tmp_path)
    (tmp_path / "spikes.csv").write_text("time,unit\n0.5,7\n")
    (tmp_path / "trials.csv").write_text(f'start,stop\n0,1\n,\n1,"{found}"\n')
    with refuses(f"trials.csv: column stop, row 2: found {found!r}", "numbers"):
        read_source("tables", "s", tmp_path)


def test_ids_that_a_program_wrote_with_a_fraction(tmp_path):
    """pandas does, as soon as one is missing anywhere; the table of units may say them as they are."""
    (tmp_path / "spikes.csv").write_text("time,unit\n0.5,7.0\n0.6,10.0\n0.7,7\n0.8,007\n0.9,1.50\n")
    recording = read_source("tables", "s", tmp_path)
    assert list(recording.units["unit_id"]) == ["7", "10", "007", "1.50"]
    assert list(recording.spike_units) == [0, 1, 0, 2, 3]
    (tmp_path / "units.csv").write_text("unit_id,region\n7,A\n10,B\n007,C\n1.50,D\n")
    assert list(read_source("tables", "s", tmp_path).spike_units) == [0, 1, 0, 2, 3]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_text_in_another_encoding(tmp_path, encoding):
    (tmp_path / "spikes.csv").write_text("time,unit\n0.5,süß\n", encoding=encoding)
    with refuses("spikes.csv", "UnicodeDecodeError", "text in UTF-8"):
        read_source("tables", "s", tmp_path)


def test_spaces_at_the_end_are_no_part_of_names_and_labels(tmp_path):
    (tmp_path / "spikes.csv").write_text("time ,unit \n0.5,007 \n0.6,b\n0.7,b \n")
    (tmp_path / "trials.csv").write_text("start,stop,condition,time \n0,1,left,1 \n1,2,left ,2\n2,3,,3\n")
    recording = read_source("tables", "s", tmp_path)
    assert list(recording.units["unit_id"]) == ["007", "b"]
    assert list(recording.trials["condition"]) == ["left", "left", "none"]
    (tmp_path / "spikes.csv").write_text("time,unit,unit \n0.5,1,2\n")
    with refuses("spikes.csv: header: found 'unit' twice"):
        read_source("tables", "s", tmp_path)


def test_an_ending_in_capitals_is_an_ending(tmp_path):
    (tmp_path / "DAY1.CSV").write_text("time,unit\n0.5,1\n")
    (tmp_path / "TRIALS.Tsv").write_text("start\tstop\n0\t1\n")
    assert len(read_source("tables", "s", tmp_path / "DAY1.CSV", {"trials": "TRIALS.Tsv"}).trials) == 1


def test_numbers_of_rows_are_no_dimension_of_a_signal(tmp_path):
    """pandas writes them before the first column, unless it is told not to."""
    (tmp_path / "spikes.csv").write_text("time,unit,\n0.5,1,\n")
    (tmp_path / "signals").mkdir()
    (tmp_path / "signals/running.csv").write_text(",time,speed,NA\n0,0.5,3.0,1\n1,0.6,4.0,1\n")
    assert list(read_source("tables", "s", tmp_path).signals["running"]) == ["time", "speed", "NA"]
