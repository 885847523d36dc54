"""Sessions in a lab's own format: a Python file in the sheet, no rule edited."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from tests.workflow.project import REPOSITORY, Project


def test_a_lab_reads_its_own_format(tmp_path: Path) -> None:
    """Its file lies in a folder with a space; what it does is among what a recording is made of."""
    project, rng = Project(tmp_path), np.random.default_rng(0)
    source, session = tmp_path / "our lab/npy_folder.py", tmp_path / "data/day1"
    for made in (source.parent, session):
        made.mkdir(parents=True)
    shutil.copy(REPOSITORY / "docs/examples/npy_folder.py", source)
    for unit in ("a3", "b7"):
        np.save(session / f"times_{unit}.npy", np.sort(rng.uniform(0, 60_000, 500)))
    np.save(session / "trials.npy", np.column_stack([np.arange(0, 58_000, 2000), np.arange(29) % 2]))
    project.write_config({"sessions": "config/sessions.tsv", "models": []})
    project.write_sheet("session\tsource\tlocation\toptions\nday1\tour lab/npy_folder.py\tday1\tregion: CA1\n")
    done = project.snakemake("data")
    assert done.returncode == 0, done.stderr[-2000:]
    assert pd.read_parquet(tmp_path / "results/recordings/day1/units.parquet")["region"].tolist() == ["CA1", "CA1"]
    source.write_text(source.read_text() + "\n# a comment\n")
    assert "record" not in project.planned("data")
    source.write_text(source.read_text().replace("side > 0", "side < 1"))
    assert project.planned("data")["record"] == 1
