"""Users' tables, ALF folders and chunks with anything in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.outcome import FEW, ends_well, record

CELLS = st.one_of(st.floats(), st.integers(), st.text(max_size=6), st.booleans(), st.none())
FRAMES = st.dictionaries(
    st.sampled_from(["time", "unit", "unit_id", "start", "stop", "condition", "region", "x", "", "\x00"]),
    st.lists(CELLS, min_size=3, max_size=3),
    max_size=5,
)


@FEW
@given(name=st.sampled_from(["spikes.csv", "spikes.tsv", "units.csv", "trials.tsv", "observed.csv"]), text=st.text())
def test_text_that_is_no_table(
    name: str, text: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "in").mkdir()
    (folder / "in/spikes.tsv").write_text("time\tunit\n0.1\t1\n0.2\t2\n")
    if name == "spikes.csv":
        (folder / "in/spikes.tsv").unlink()
    (folder / "in" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    record("tables", folder / "in", folder, capsys)


@FEW
@given(frames=st.dictionaries(st.sampled_from(["spikes", "units", "trials", "observed", "signals/speed"]), FRAMES))
def test_tables_of_anything(
    frames: dict, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "in/signals").mkdir(parents=True)
    if "spikes" not in frames:
        pd.DataFrame({"time": [0.1, 0.2], "unit": [1, 2]}).to_parquet(folder / "in/spikes.parquet")
    for name, columns in frames.items():
        try:
            pd.DataFrame(columns).to_parquet(folder / f"in/{name}.parquet")
        except (ValueError, TypeError, OverflowError):  # Parquet itself refuses columns of mixed types
            pd.DataFrame(columns).to_csv(folder / f"in/{name}.csv", index=False)
    record("tables", folder / "in", folder, capsys)


ARRAYS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([np.arange(5.0), np.full(7, np.nan), np.zeros((2, 3)), np.array(3), np.array(["a", "b"])]),
    st.sampled_from(
        [np.arange(4) - 9, np.full(3, 2**62), np.zeros(0), np.array([1e300, -1e300]), np.array([{}, None])]
    ),
)


@FEW
@given(data=st.data())
def test_alf_folders(
    data: st.DataObject, ibl_session: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    session = folder.joinpath(*ibl_session.parts[-5:])
    shutil.copytree(ibl_session, session)
    files = sorted(path for path in (session / "alf").rglob("*") if path.is_file())
    for path in data.draw(st.lists(st.sampled_from(files), min_size=1, max_size=3, unique=True)):
        content = data.draw(ARRAYS)
        if isinstance(content, bytes):
            keep = data.draw(st.integers(0, path.stat().st_size))
            path.write_bytes(path.read_bytes()[:keep] + content)
        elif path.suffix == ".pqt" and content.ndim == 1 and content.dtype.kind != "O":
            columns = list(pd.read_parquet(path))
            pd.DataFrame(dict.fromkeys(columns[: data.draw(st.integers(1, len(columns)))], content)).to_parquet(path)
        else:
            path.unlink()
            np.save(path.with_suffix(".npy"), content, allow_pickle=True)
    options = {"signals": ["licks", "motion_energy", "pose"], "min_label": None}
    record("ibl", session, folder, capsys, json.dumps(options))


@FEW
@given(numbers=st.tuples(*[st.integers(0, 10**13)] * 4), shape=st.tuples(st.integers(0, 4), st.integers(0, 4)))
def test_chunks(
    numbers: tuple, shape: tuple, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "in").mkdir()
    table = pd.DataFrame(np.ones(shape, dtype=bool)).rename(columns=str)
    table.to_parquet(folder / "in" / "x_{}-{}_{}-{}.parquet".format(*numbers))
    record("chunks", folder / "in", folder, capsys)


@FEW
@given(options=st.dictionaries(st.sampled_from(["regions", "min_rate", "query", "signals", "sort", "no"]), CELLS))
def test_options_of_any_type(
    options: dict, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "spikes.tsv").write_text("time\tunit\n0.1\t1\n0.2\t2\n")
    record("tables", folder / "spikes.tsv", folder, capsys, json.dumps(options))


@FEW
@given(data=st.data())
def test_stores_with_damaged_files(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    """A Zarr store of spike trains: whatever file of it is damaged, the next stage says which, in one line."""
    folder = tmp_path_factory.mktemp("fuzz")
    rows = "".join(f"{0.01 * k:.2f}\t{k % 3}\n" for k in range(600))
    (folder / "spikes.tsv").write_text("time\tunit\n" + rows)
    assert record("tables", folder / "spikes.tsv", folder, capsys)
    files = sorted(path for path in (folder / "trains").rglob("*") if path.is_file() and path.name != ".lock")
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["flip", "cut", "remove", "junk"]))
    if how == "flip" and content:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    if how == "cut":
        content = content[: data.draw(st.integers(0, max(len(content) - 1, 0)))]
    if how == "junk":
        content = data.draw(st.binary(max_size=80))
    path.write_bytes(content)
    if how == "remove":
        path.unlink()
    windows, splits = json.dumps({"mode": "continuous", "length": 0.5}), json.dumps({"block": 1.0})
    arguments = ["--trains", str(folder / "trains"), "--cohort", "x", "--windows", windows, "--splits", splits]
    ends_well(["split", *arguments, "--out", str(folder / "split.parquet")], capsys)
