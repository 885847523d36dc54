"""The workflow at the size of a survey: 1,000 sessions x 5 models x 3 seeds. CPU seconds of Snakemake; no job runs.

    python -m benchmarks scale

The session sheet names one simulation a thousand times, so that planning costs what it costs for real sessions that are
fetched. `nothing to do` is asked of made-up files, without Snakemake's records of parameters (which cost more). The
floor is a Snakefile of as many jobs that ask for nothing: one output, no function, no resource, no log. On a machine
whose cores others use, too, CPU time comes out up to half as much again: compare with the floor, or find a quiet one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import yaml

REPOSITORY = Path(__file__).parents[1]
MODELS = ["mean_rate", "psth", "smoothing", "glm", "ndt"]
SEEDS = [0, 1, 2]
WINDOWS = {"bin_size": 2, "align": "stimulus_onset", "after": 0.5, "history": 0.1}

FLOOR = """
rule all:
    input: [f"last/{session}" for session in range(SESSIONS)]
rule last:
    input: [f"job/{{session}}/{number}" for number in range(JOBS - 1)]
    output: "last/{session}"
    shell: "touch {output}"
rule job:
    output: "job/{session}/{number}"
    shell: "touch {output}"
"""


def write_project(folder: Path, sessions: int) -> None:
    """A project of that many sessions; code by link."""
    (folder / "config").mkdir(parents=True)
    for name in ("pipeline_lib", "workflow", "config/models"):
        (folder / name).symlink_to(REPOSITORY / name)
    settings = {"neurons_per_area": 6, "coupled": 2, "trials": 40}
    content = {
        "sessions": "config/sessions.tsv",
        "models": MODELS,
        "seeds": SEEDS,
        "windows": WINDOWS,
        "simulations": {"pair": {"simulator": "eif", "layout": "allen", "settings": settings}},
    }
    (folder / "config/config.yaml").write_text(yaml.safe_dump(content))
    rows = [f"session{number:05d}\tallen\tsimulated:pair\t" for number in range(sessions)]
    (folder / "config/sessions.tsv").write_text("\n".join(["session\tsource\tlocation\toptions", *rows]) + "\n")


def snakemake(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """CPU seconds, peak GB and output of a run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise SystemExit(output[-3000:])
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak / 1e9, output


def floor(folder: Path, sessions: int, jobs: int) -> tuple[float, float, str]:
    """The dry run of a Snakefile of about as many minimal jobs."""
    folder.mkdir()
    (folder / "Snakefile").write_text(f"SESSIONS, JOBS = {sessions}, {jobs // sessions}\n{FLOOR}")
    return snakemake(folder, "--dry-run", "--scheduler", "greedy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_project(folder, options.sessions)
        snakemake(folder, "data", "--dry-run")  # what is remembered of models, once for all
        seconds, gigabytes, output = snakemake(folder, "--dry-run")
        jobs = next(line.split()[1] for line in output.splitlines() if line.startswith("total"))
        rows.append(("dry run of everything", jobs, seconds, "<= 40", gigabytes, "<= 0.7"))
        seconds, gigabytes, output = floor(folder / "floor", options.sessions, int(jobs))
        floor_jobs = next(line.split()[1] for line in output.splitlines() if line.startswith("total"))
        rows.append(("floor: dry run of minimal jobs", floor_jobs, seconds, "", gigabytes, ""))
        target = "results/scores/session00042/glm/seed0/metrics.parquet"
        seconds, gigabytes, output = snakemake(folder, "--dry-run", target)
        jobs = next(line.split()[1] for line in output.splitlines() if line.startswith("total"))
        rows.append(("dry run of one score", jobs, seconds, "<= 3", gigabytes, ""))
        write_all(folder)
        seconds, gigabytes, output = snakemake(folder, "--dry-run")
        assert "Nothing to be done" in output, output[-2000:]
        rows.append(("nothing to do", "0", seconds, "<= 25", gigabytes, ""))
    size = f"{options.sessions} sessions x {len(MODELS)} models x {len(SEEDS)} seeds"
    lines = [
        "# Scale",
        "",
        f"{size}; CPU seconds and peak memory of Snakemake.",
        "",
        "| asked | jobs | CPU s | target | peak GB | target |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {asked} | {jobs} | {cpu:.1f} | {most} | {peak:.2f} | {limit} |"
            for asked, jobs, cpu, most, peak, limit in rows
        ),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def write_all(folder: Path) -> None:
    """Make every declared file, all at one time of change, so that none is newer than what it was made into."""
    moment = time.time()
    listed = snakemake(folder, "--summary")[2].splitlines()
    for line in listed[1:]:
        path = folder / line.split("\t")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Jobs ask the manifest of a store for its size.
        path.write_text(json.dumps({"spikes": 10**6, "units": 100, "duration_ticks": 10**8}))
        os.utime(path, (moment, moment))


if __name__ == "__main__":
    main()
