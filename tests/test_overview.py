"""`list`: what is done, runs, has failed or stopped on its way, and is missing."""

import contextlib
from pathlib import Path

import pytest

from pipeline_lib.files import LOCK, exclusive
from pipeline_lib.overview import overview
from pipeline_lib.plan import resolve
from pipeline_lib.training.run import FitError, Run


@pytest.mark.parametrize("said", ["running", "stopped", "failed"])
def test_a_fit_whose_process_is_gone_does_not_run(tmp_path: Path, said: str) -> None:
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\nday1\ttables\tspikes.csv\n")
    config = {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "results": str(tmp_path / "results")}
    plan = resolve(config | {"models": ["glm", "ndt", "psth"]})
    glm, ndt = (tmp_path / f"results/fits/day1/{model}/seed0" for model in ("glm", "ndt"))
    glm.mkdir(parents=True)
    (glm / "manifest.json").touch()
    run = Run(ndt, "key", {"cohort": "day1", "model": "ndt", "seed": 0})
    run.progress(1, 2, 0.5)
    if said == "failed":
        with pytest.raises(FitError), run.stopping():
            raise FitError("the loss is nan")
    with exclusive(ndt / LOCK) if said == "running" else contextlib.nullcontext():
        lines = overview(plan).splitlines()
    assert lines[-3].split() == ["day1", "1", "done", said, "-"]
    assert lines[-1] == "1 of 3 fits done"
