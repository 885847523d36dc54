"""Sessions and cohorts that a change of their settings has left behind, with all that was made of them.

By what is kept beside results (see `made_with`); one that says nothing is taken as right. Code is left to Snakemake.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.made_with import read_made_with, told, unpacked
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan


@dataclass(frozen=True)
class OutdatedData:
    """Names of sessions whose recording or trains, and of cohorts whose split, the next run makes anew."""

    recordings: frozenset[str]
    trains: frozenset[str]
    cohorts: frozenset[str]


def outdated_data(plan: Plan, paths: Paths) -> OutdatedData:
    """Compare simulations, recordings, stores and splits with the settings of the plan; what follows counts."""

    def other(file: str, *wanted: Any) -> bool:
        record = read_made_with(file, plan.config.results)
        parameters = [unpacked(each) for each in record["params"]] if record else []
        # As it is read back: lists for tuples, text for dates.
        return bool(parameters) and not all(json.loads(told(each)) in parameters for each in wanted)

    simulations = {
        name
        for name, simulation in plan.config.simulations.items()
        if other(paths.simulation(name), simulation.model_dump(exclude={"settings"}), simulation.settings)
    }
    recordings = {
        name
        for name, session in plan.sessions.items()
        if session.simulation in simulations or other(paths.recording(name), session.source, session.options)
    }
    trains = {name for name in plan.sessions if name in recordings or other(paths.trains(name), plan.config.counts)}
    cohorts = {
        name
        for name, cohort in plan.cohorts.items()
        if not recordings.isdisjoint(cohort.sessions)
        or other(paths.split(name), asdict(cohort.windows), asdict(cohort.splits))
    }
    return OutdatedData(frozenset(recordings), frozenset(trains), frozenset(cohorts))
