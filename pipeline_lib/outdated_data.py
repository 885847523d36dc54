"""Sessions and cohorts that a change of their settings or files has left behind, with all that was made of them.

By what is kept beside results (see `made_with`); one that says nothing is taken as right. Code is left to Snakemake.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file
from pipeline_lib.made_with import read_made_with, told, unpacked
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Cohort, Plan
from pipeline_lib.session_sheet import Session
from pipeline_lib.sources import session_files


@dataclass(frozen=True)
class OutdatedData:
    """Names of sessions whose recording or trains, and of cohorts whose split, the next run makes anew."""

    recordings: frozenset[str]
    trains: frozenset[str]
    cohorts: frozenset[str]


def outdated_data(plan: Plan, paths: Paths) -> OutdatedData:
    """Compare simulations, recordings, stores and splits with the settings of the plan, and with the files that they
    were made from as these are now; what follows counts.
    """

    def other(file: str, inputs: list[str] | None, *wanted: Any) -> bool:
        record = read_made_with(file, plan.config.results)
        if not record or not record["params"]:
            return False
        parameters = [unpacked(each) for each in record["params"]]
        # As it is read back: lists for tuples, text for dates.
        same = all(json.loads(told(each)) in parameters for each in wanted)
        return not same or (inputs is not None and _is_of_others(file, inputs, record))

    simulations = {
        name
        for name, simulation in plan.config.simulations.items()
        if other(paths.simulation(name), None, simulation.model_dump(exclude={"settings"}), simulation.settings)
    }
    recordings = {
        name
        for name, session in plan.sessions.items()
        if session.simulation in simulations
        or other(paths.recording(name), _files(session, paths), session.source, session.options)
    }
    of_others = recordings | {name for name in plan.sessions if other(paths.trains(name), [paths.recording(name)])}
    trains = of_others | {name for name in plan.sessions if other(paths.trains(name), None, plan.config.counts)}
    cohorts = {
        name
        for name, cohort in plan.cohorts.items()
        if not of_others.isdisjoint(cohort.sessions)
        or other(paths.split(name), _of_split(cohort, paths), asdict(cohort.windows), asdict(cohort.splits))
    }
    return OutdatedData(frozenset(recordings), frozenset(trains), frozenset(cohorts))


def _files(session: Session, paths: Paths) -> list[str] | None:
    """The files that a recording is made from; None where they are fetched, and so stay, or cannot be found."""
    if session.simulation:
        return [paths.simulation(session.simulation)]
    if session.remote:
        return None
    try:
        return [str(file) for file in session_files(session.source, session.location, session.options)]
    except InputError:  # `check` says what is wrong
        return None


def _of_split(cohort: Cohort, paths: Paths) -> list[str]:
    """The stores that a split is made from, and the file of parts that the user brings, if any."""
    return [*map(paths.trains, cohort.sessions), *filter(None, [cohort.splits.file])]


def _is_of_others(file: str, inputs: list[str], record: dict[str, Any]) -> bool:
    """Whether a result was made from other files than these `inputs`, or from other bytes of them.

    As Snakemake judges it: a file that is older than the result is the one that it was made from, and of a large one no
    sum is kept.
    """
    sums = record.get("input_checksums") or {}
    try:
        made = Path(file).stat().st_mtime
        newer = [each for each in inputs if Path(each).stat().st_mtime > made]
        changed = any(each not in sums or sums[each] != f"sha256:{sha256_file(each)}" for each in newer)
    except OSError:  # not there: not made, or to be made anew for that
        return False
    return changed or sorted(inputs) != sorted(record.get("input") or inputs)
