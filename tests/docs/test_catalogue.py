"""The workflow as the catalogue deploys it: a module of somebody's own Snakefile, with a copy of config/."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYED = """
configfile: "config/config.yaml"

module trainyard:
    snakefile: "{snakefile}"
    config: config

use rule * from trainyard
"""


def test_the_workflow_can_be_used_as_a_module(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    (tmp_path / "workflow").mkdir()
    text = DEPLOYED.format(snakefile=REPOSITORY / "workflow/Snakefile")
    (tmp_path / "workflow/Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--quiet", "rules"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert jobs["fit"] == "12" and jobs["report_page"] == "1", jobs
