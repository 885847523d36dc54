"""A project of its own for each test: a copy of the code and a small configuration."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

SMALL = {
    "sessions": "config/sessions.tsv",
    "models": ["mean_rate", "glm"],
    "evaluation": {"resamples": 50},
    "simulations": {
        "pair": {
            "simulator": "eif",
            "layout": "allen",
            "settings": {"neurons_per_area": 6, "coupled": 2, "trials": 40},
        },
    },
    "cohorts": {"pair": {"windows": {"bin_size": 2, "align": "stimulus_onset", "after": 0.5, "history": 0.1}}},
}
SHEET = "session\tsource\tlocation\toptions\npair\tallen\tsimulated:pair\t\n"


class Project:
    """A folder with the code, a configuration and a session sheet, and Snakemake to run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("pipeline_lib", "workflow", "config"):
            shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.write_config(SMALL)
        self.write_sheet(SHEET)

    def write_config(self, content: dict) -> None:
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump(content))

    def write_sheet(self, text: str) -> None:
        (self.folder / "config/sessions.tsv").write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        # The copy goes before the installed package, so that a test can edit code.
        return os.environ | {"PYTHONPATH": str(self.folder), "OMP_WAIT_POLICY": "PASSIVE"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment, capture_output=True, text=True
        )

    def verb(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "pipeline_lib", *arguments]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)

    def made(self) -> dict[str, str]:
        """Hashes of everything made, but for what tells times: logs, benchmarks, run.json, the report, one figure."""
        results = self.folder / "results"
        skipped = {"logs", "benchmarks", "run.json", "report.html", ".lock", ".snakemake_timestamp"}
        return {
            str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(results.rglob("*"))
            if path.is_file()
            and not path.name.endswith(".made_with.json")
            and (path.parent.name, path.stem) != ("figures", "speed")
            and not skipped & {*path.relative_to(results).parts}
        }

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs that Snakemake would run, by rule."""
        result = self.snakemake("--dry-run", *arguments)
        assert result.returncode == 0, result.stderr
        jobs: dict[str, int] = {}
        lines = (result.stdout + result.stderr).splitlines()
        for line in lines[lines.index("Job stats:") + 3 :] if "Job stats:" in lines else []:
            if not line.strip():
                break
            name, count = line.split()
            jobs[name] = int(count)
        jobs.pop("total", None)
        return jobs

    def start(self, *arguments: str, output: int = subprocess.DEVNULL) -> subprocess.Popen:
        """Start Snakemake, with its jobs as a group of processes; what it says goes to `output`."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            stdout=output,
            stderr=subprocess.DEVNULL if output == subprocess.DEVNULL else subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def kill_when(self, condition: Callable[[], bool], *arguments: str) -> None:
        """Start Snakemake and `kill -9` it and its jobs as soon as `condition` is true."""
        process = self.start(*arguments)
        try:
            until = time.monotonic() + 180
            while not condition():
                assert process.poll() is None, "the run ended before the moment to kill it"
                assert time.monotonic() < until
                time.sleep(0.002)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
