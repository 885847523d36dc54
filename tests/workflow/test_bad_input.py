"""Bad input: one clear line before any job starts, an exit code that is not 0, and nothing written."""

import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from tests.workflow.project import SMALL, Project

OWN = {key: value for key, value in SMALL.items() if key not in ("simulations", "cohorts")} | {
    "windows": {"bin_size": 10, "mode": "continuous", "length": 1.0},
    "splits": {"block": 4.0},
}
TIMES = np.arange(0.05, 60, 0.1)
UNITS = np.arange(len(TIMES)) % 5


def _own(
    project: Project, times: np.ndarray = TIMES, units: np.ndarray = UNITS, options: str = "", **config: object
) -> None:
    (project.folder / "data").mkdir(exist_ok=True)
    np.savez(project.folder / "data/mine.npz", time=times, unit=units)
    project.write_sheet(f"session\tsource\tlocation\toptions\nmine\ttables\tmine.npz\t{options}\n")
    project.write_config(OWN | config)


def _unsorted(project: Project) -> None:
    _own(project, times=TIMES[::-1].copy())


def _negative(project: Project) -> None:
    _own(project, times=TIMES - 1)


def _not_a_number(project: Project) -> None:
    times = TIMES.copy()
    times[7] = np.nan
    _own(project, times=times)


def _beyond(project: Project) -> None:
    _own(project, options="duration: 30")


def _empty(project: Project) -> None:
    _own(project, times=TIMES[:0], units=UNITS[:0])


def _heldout(project: Project) -> None:
    _own(project, splits={"block": 4.0, "heldout_units": 9})


def _no_trials(project: Project) -> None:
    _own(project, windows={"bin_size": 10})


def _short(project: Project) -> None:
    _own(project, splits={"block": 50.0})


def _unit(project: Project) -> None:
    _own(project, options="units: units.csv")
    (project.folder / "data/units.csv").write_text("unit_id\n0\n1\n")


CASES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "unsorted spike times": (_unsorted, ["mine.npz", "time", "sort"]),
    "negative spike times": (_negative, ["mine.npz", "time", "-0.95"]),
    "spike times that are not numbers": (_not_a_number, ["mine.npz", "time", "nan"]),
    "spike times beyond the session": (_beyond, ["mine.npz", "time", "30"]),
    "an empty recording": (_empty, ["mine.npz", "spike"]),
    "fewer units than held out": (_heldout, ["heldout_units", "9"]),
    "a session without trials": (_no_trials, ["mine", "trial"]),
    "nothing left for a part of the split": (_short, ["mine"]),
    "a unit index out of range": (_unit, ["unit"]),
    "an unknown key": (lambda project: _own(project, modles=[]), ["modles", "'models'"]),
    "an unknown hyper-parameter": (
        lambda project: _own(project, models={"glm": {"histroy": 1}}),
        ["histroy", "'history'"],
    ),
    "an unknown figure": (lambda project: _own(project, figures=["rastr_rates"]), ["rastr_rates", "'raster_rates'"]),
}


def _complaint(result: subprocess.CompletedProcess) -> str:
    """The one line that a refused run says, beside what Snakemake says of profiles and files."""
    own = ("Using workflow specific profile", "Config file")
    said = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith(own)]
    assert result.returncode == 2
    assert len(said) == 1, result.stderr
    assert said[0].startswith("error: ")
    return said[0]


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_nothing_written(project: Project, case: str) -> None:
    make, parts = CASES[case]
    make(project)
    complaint = _complaint(project.verb("check"))
    assert all(part in complaint for part in parts), complaint
    assert not (project.folder / "results").exists()


@pytest.mark.parametrize("case", ["unsorted spike times", "an unknown hyper-parameter"])
def test_snakemake_says_the_same_before_any_job(project: Project, case: str) -> None:
    make, parts = CASES[case]
    make(project)
    complaint = _complaint(project.snakemake())
    assert all(part in complaint for part in parts), complaint
    assert not (project.folder / "results").exists()


def test_the_same_data_put_right_passes(project: Project) -> None:
    _own(project)
    assert project.verb("check").returncode == 0


def test_a_mistake_on_the_command_line_is_not_told_of_the_file_alone(project: Project) -> None:
    _own(project)
    complaint = _complaint(project.snakemake("--config", "windows={bin_sise: 20}"))
    assert "config.yaml, --config: windows.bin_sise" in complaint
