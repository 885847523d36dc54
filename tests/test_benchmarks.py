"""Benchmarks leave the pages of their results alone."""

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
