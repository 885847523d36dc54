"""`list`: what is done, runs, has stopped on its way, and is missing."""

import json
import os
from pathlib import Path

import pytest

from pipeline_lib.overview import overview
from pipeline_lib.plan import resolve
from pipeline_lib.training.run import Run


@pytest.mark.parametrize(("pid", "said"), [(None, "running"), (2**22 + 1, "stopped")], ids=["this one", "gone"])
def test_a_fit_whose_process_is_gone_does_not_run(tmp_path: Path, pid: int | None, said: str) -> None:
    (tmp_path / "spikes.csv").write_text("time,unit\n")
    (tmp_path / "sheet.tsv").write_text("session\tsource\tlocation\nday1\ttables\tspikes.csv\n")
    config = {"sessions": str(tmp_path / "sheet.tsv"), "data": str(tmp_path), "results": str(tmp_path / "results")}
    plan = resolve(config | {"models": ["glm", "ndt", "psth"]})
    glm, ndt = (tmp_path / f"results/fits/day1/{model}/seed0" for model in ("glm", "ndt"))
    glm.mkdir(parents=True)
    (glm / "manifest.json").touch()
    Run(ndt, "key", {"cohort": "day1", "model": "ndt", "seed": 0}).progress(1, 2, 0.5)
    progress = ndt / ".resume/progress.json"
    progress.write_text(json.dumps(json.loads(progress.read_text()) | {"pid": pid or os.getpid()}))
    lines = overview(plan).splitlines()
    assert lines[-3].split() == ["day1", "1", "done", said, "-"]
    assert lines[-1] == "1 of 3 fits done"
