"""NWB files whose tables are not what they should be.

The content of the file is changed, not its bytes: a flipped bit in HDF5's own bookkeeping can crash libhdf5 itself,
which no reader can turn into a message (a truncated file it does refuse).
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.outcome import FEW, record

REPLACEMENTS = {
    "nothing": lambda old: old[:0],
    "one less": lambda old: old[:-1],
    "twice": lambda old: np.concatenate([old, old]),
    "another dimension": lambda old: np.stack([old, old], axis=-1),
    "a scalar": lambda old: np.float64(1.5),
    "NaN": lambda old: np.full(old.shape, np.nan),
    "infinite": lambda old: np.full(old.shape, np.inf),
    "negative": lambda old: np.full(old.shape, -7.25),
    "huge": lambda old: np.full(old.shape, 1e300),
    "largest integers": lambda old: np.full(old.shape, 2**63 - 1, dtype=np.int64),
    "largest unsigned": lambda old: np.full(old.shape, 2**64 - 1, dtype=np.uint64),
    "zeros": lambda old: np.zeros(old.shape, dtype=np.int8),
    "true": lambda old: np.ones(old.shape, dtype=bool),
    "complex": lambda old: np.full(old.shape, 1j),
    "bytes": lambda old: np.full(old.shape, b"\xff\xfe"),
    "records": lambda old: np.zeros(old.shape, dtype=[("a", "i4"), ("b", "f8")]),
}
SHAPES = ("deleted", "a group", "a loop of links", "a link to another file", "a reference", "text", *REPLACEMENTS)


def _names(path: Path) -> list[str]:
    names: list[str] = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: names.append(name) if not name.startswith("specifications") else None)
    return names


def _change(path: Path, name: str, how: str) -> None:
    with h5py.File(path, "r+") as file:
        old = file[name][()] if isinstance(file[name], h5py.Dataset) else np.arange(3)
        old = np.atleast_1d(np.asarray(old))
        attributes = dict(file[name].attrs)
        if how in REPLACEMENTS and old.dtype.kind == "O" and how in ("twice", "another dimension"):
            old = np.arange(len(old))
        del file[name]
        if how == "a group":
            file.create_group(name)
        elif how == "a loop of links":
            file[name] = h5py.SoftLink(f"/{name}")
        elif how == "a link to another file":
            file[name] = h5py.ExternalLink(str(path.with_name("other.h5")), "/secret")
        elif how == "a reference":
            file.create_dataset(name, data=np.array([file.ref] * len(old), dtype=h5py.ref_dtype))
        elif how == "text":
            file.create_dataset(name, data=np.full(old.shape, "é\x01", dtype=object), dtype=h5py.string_dtype())
        elif how != "deleted":
            new = np.asarray(REPLACEMENTS[how](old))
            file.create_dataset(name, data=new, dtype=h5py.string_dtype() if new.dtype.kind == "O" else None)
        if how in REPLACEMENTS:
            for key, value in attributes.items():
                file[name].attrs[key] = value


@pytest.mark.parametrize("source", ["allen", "nwb"])
@FEW
@given(data=st.data())
def test_changed_tables(
    source: str,
    data: st.DataObject,
    allen_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "session.nwb"
    shutil.copyfile(allen_file, path)
    with h5py.File(folder / "other.h5", "w") as other:
        other["secret"] = np.arange(4.0)
    for name in data.draw(st.lists(st.sampled_from(_names(path)), min_size=1, max_size=2, unique=True)):
        try:
            _change(path, name, data.draw(st.sampled_from(SHAPES)))
        except KeyError:  # the first change took the second one's place away
            continue
    record(source, path, folder, capsys)


@FEW
@given(share=st.floats(0, 1), tail=st.binary(max_size=40))
def test_cut_files(
    share: float, tail: bytes, allen_file: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    content = allen_file.read_bytes()
    (folder / "session.nwb").write_bytes(content[: int(share * (len(content) - 41))] + tail)
    assert not record("allen", folder / "session.nwb", folder, capsys)
