"""Benchmarks leave the pages of their results alone, and say what they cannot measure."""

import os
import sys
from pathlib import Path

import pytest

from benchmarks import scale


def test_scale_prints_its_table_and_writes_it_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The page has notes that a run would overwrite."""
    page = scale.REPOSITORY / "benchmarks" / "results" / "scale.md"
    before = page.read_bytes()
    monkeypatch.setattr(scale, "snakemake", lambda *arguments: (1.5, 0.25, "total 7\nNothing to be done"))
    monkeypatch.setattr(sys, "argv", ["scale.py", "--sessions", "2"])
    try:
        scale.main()
        assert page.read_bytes() == before
    finally:
        page.write_bytes(before)
    printed = capsys.readouterr().out
    assert "| dry run of everything | 7 | 1.5 | <= 40 | 0.25 | <= 0.7 |" in printed
    monkeypatch.setattr(sys, "argv", ["scale.py", "--sessions", "2", "--out", str(tmp_path / "table.md")])
    scale.main()
    assert (tmp_path / "table.md").read_text() == printed


def test_ways_of_a_gpu_are_refused_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table without them would pass for theirs."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY"):  # which the benchmark sets
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    from benchmarks import ndt

    assert ndt.chosen("way", "float", ndt.ON_CPU, "cpu").keys() == {"float32", "bfloat16"}
    with pytest.raises(SystemExit, match="--way: found 'graph'; accepted on cpu: a part of float32; bfloat16"):
        ndt.chosen("way", "graph", ndt.ON_CPU, "cpu")
