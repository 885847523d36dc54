"""A disk that fills while a result is written: one line, nothing half-made, and the same bytes once there is room."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workflow.project import Project


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def limit(self, kilobytes: int) -> None:
        self._mount(f"remount,size={kilobytes}k")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {result.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    small = Disk(folder)
    small._mount("size=64k")
    yield small
    subprocess.run(["umount", "-l", str(folder)], check=True)


def arguments(verb: str, project: Project, out: Path) -> list[str]:
    """The command that made a result of the finished project, written somewhere else."""
    results = project.folder / "results"
    paths = {
        "recording": str(results / "recordings/pair"),
        "trains": str(results / "trains/pair"),
        "split": str(results / "splits/pair.parquet"),
        "fits": [str(results / "fits/pair/glm/seed0")],
    }
    of_data = ["--trains", paths["trains"], "--split", paths["split"]]
    recording = str(results / "recordings/pair")
    return {
        "convert": ["convert", "--recording", recording, "--out", str(out)],
        "fit": ["fit", *of_data, "--model", "glm", "--out", str(out)],
        "evaluate": [
            *["evaluate", *of_data, "--fit", paths["fits"][0], "--recordings", recording],
            *["--resamples", "10", "--out", str(out / "metrics.parquet")],
        ],
        "figure": ["figure", "raster_rates", "--paths", json.dumps(paths), "--out", str(out)],
    }[verb]


def published(folder: Path) -> list[str]:
    """Files that another process would take for a result; locks, checkpoints and progress are not."""
    listed = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(str(path) for path in listed if not {".lock", ".resume"} & set(path.parts))


# Kilobytes of a disk that fills in the middle of the result: less than the whole, more than its first file.
ROOM = {"convert": 24, "fit": 40, "evaluate": 4, "figure": 40}


@pytest.mark.parametrize("verb", ROOM)
def test_a_full_disk_is_one_line_and_the_next_run_is_right(finished: Project, disk: Disk, verb: str) -> None:
    out = disk.folder / "out"
    disk.limit(ROOM[verb])
    result = finished.verb(*arguments(verb, finished, out))
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == 1, result.stderr
    assert len(errors) == 1, result.stderr
    assert "No space left on device (" in errors[0]
    assert str(out) in errors[0]
    assert f" free at {disk.folder}); nothing was published: make room there" in errors[0]
    assert "Traceback" not in result.stderr
    assert published(out) == []
    disk.limit(64_000)
    assert finished.verb(*arguments(verb, finished, out)).returncode == 0
    made = published(out)
    assert made
    undisturbed = disk.folder / "undisturbed"
    assert finished.verb(*arguments(verb, finished, undisturbed)).returncode == 0
    assert made == published(undisturbed)
    for name in made:
        if name != "run.json":
            assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name


def test_results_that_may_not_be_written_are_one_line(finished: Project, disk: Disk) -> None:
    out = disk.folder / "out"
    out.mkdir()
    disk._mount("remount,ro")
    result = finished.verb(*arguments("convert", finished, out))
    disk._mount("remount,rw")
    assert result.returncode == 1
    assert "Read-only file system" in result.stderr
    assert "Traceback" not in result.stderr
    assert published(out) == []


def test_a_run_on_a_full_disk_says_where_room_is_missing(project: Project, disk: Disk) -> None:
    """Its logs and its report lie there, too: they are empty, or not there."""
    disk.limit(4)
    (project.folder / "results").symlink_to(disk.folder)
    result = project.snakemake("results/simulated/pair/simulation.json")
    assert result.returncode == 1
    told = f"error: {disk.folder}: No space left on device (0.0 MB of 0.0 MB free at {disk.folder}): make room there"
    assert any(line.startswith(told) for line in result.stderr.splitlines()[-6:]), result.stderr[-2000:]


def test_a_run_does_not_begin_where_snakemake_has_no_room(project: Project, disk: Disk) -> None:
    (project.folder / ".snakemake").symlink_to(disk.folder)
    result = project.snakemake("--dry-run")
    assert result.returncode == 2
    (told,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert told.startswith(f"error: {disk.folder}: No space left on device (") and "Traceback" not in result.stderr
