"""Configurations and session sheets with anything in them: the plan is made, or one line says what is wrong."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.errors import InputError
from pipeline_lib.plan import load_config
from tests.fuzz.outcome import FEW

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
KEYS = ["sessions", "results", "data", "models", "seeds", "windows", "splits", "cohorts", "simulations", "sources"]
KEYS += ["downloads", "counts", "evaluation", "figures", "threads", "per_session", "model_directory"]
WINDOWS = ["bin_size", "mode", "align", "before", "after", "length", "history", "conditions"]
SPLITS = ["scheme", "fractions", "block", "gap", "heldout_units", "forward", "file", "seed"]
SHEET = "session\tsource\tlocation\toptions\n"


def _plans(path: Path) -> None:
    try:
        load_config(path)
    except InputError as error:
        assert "\n" not in str(error)


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    (tmp_path / "spikes.tsv").write_text("time\tunit\n0.1\t1\n")
    sheet = tmp_path / "sessions.tsv"
    sheet.write_text(f"{SHEET}one\ttables\t{tmp_path}/spikes.tsv\t\n")
    return sheet


@FEW
@given(text=st.text(), raw=st.binary(max_size=60))
def test_text_that_is_no_configuration(text: str, raw: bytes, tmp_path: Path) -> None:
    for content in (text.encode("utf-8", "surrogatepass"), raw):
        (tmp_path / "config.yaml").write_bytes(content)
        _plans(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "content", ["{" * 400, "- " * 400, "a: &a [*a]", "? ? ?", "a: 2020-13-45", "\x00", "%YAML 9.9"]
)
def test_yaml_made_to_break_a_parser(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(InputError):
        load_config(tmp_path / "config.yaml")


@FEW
@given(changes=st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_values_of_any_type(changes: dict, sheet: Path, tmp_path: Path) -> None:
    content = {"sessions": str(sheet), "models": ["mean_rate"]} | changes
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    _plans(tmp_path / "config.yaml")


@FEW
@given(
    windows=st.dictionaries(st.sampled_from(WINDOWS), VALUES, max_size=3),
    splits=st.dictionaries(st.sampled_from(SPLITS), VALUES, max_size=3),
)
def test_windows_and_splits_of_any_type(windows: dict, splits: dict, sheet: Path, tmp_path: Path) -> None:
    content = {"sessions": str(sheet), "models": ["mean_rate"], "windows": windows, "splits": splits}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    _plans(tmp_path / "config.yaml")


@FEW
@given(
    rows=st.lists(st.lists(st.text(max_size=12), max_size=5), max_size=3),
    cells=st.tuples(*[st.text(max_size=30)] * 2),
    header=st.sampled_from([SHEET, "session\tsource\n", "", "session\tsession\tsource\tlocation\n"]),
)
def test_sheets(rows: list, cells: tuple, header: str, tmp_path: Path) -> None:
    lines = ["\t".join(row) for row in rows] + ["\t".join(["a", "tables", *cells])]
    sheet = tmp_path / "sessions.tsv"
    sheet.write_bytes((header + "\n".join(lines)).encode("utf-8", "surrogatepass"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"sessions": str(sheet), "models": ["mean_rate"]}))
    _plans(tmp_path / "config.yaml")
