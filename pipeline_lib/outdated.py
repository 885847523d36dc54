"""Fits that are there but of something else than the configuration now says: the next run makes them anew.

After a change, a run that was ended has fits of before and after it side by side, and Snakemake removes an old one only
when it begins the new. Their scores belong into no common table, and none of them is done.
"""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.files import sha256_file
from pipeline_lib.models.registry import check_config
from pipeline_lib.outdated_data import OutdatedData, outdated_data
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan

Fit = tuple[str, str, int | str]


def outdated_fits(plan: Plan, paths: Paths, data: OutdatedData | None = None) -> set[Fit]:
    """Fits of the plan, averages over seeds among them, that are of another model or were made with other
    hyper-parameters, another split, other spike trains or other weights to start from than those that are here now, as
    their manifests say (what they do not say is taken as right), those of cohorts that are to be split anew, and those
    that start from any of these.

    Of the code nothing is asked: it changes with every version, and Snakemake knows whether that matters. `data` is
    what `outdated_data` says of the plan, where that was asked already.
    """
    found: set[Fit] = set()
    cohorts, seeds = (data or outdated_data(plan, paths)).cohorts, plan.config.seeds
    for cohort in plan.scored:
        split = Path(paths.split(cohort))
        now: dict[str, Any] = {"split": sha256_file(split)} if split.is_file() else {}
        stores = {name: _manifest(paths.trains(name)) for name in plan.cohorts[cohort].sessions}
        if all(stores.values()):
            now["trains"] = {name: told["content_hash"] for name, told in stores.items() if told}
        for name, model in plan.cohorts[cohort].models.items():
            fits: dict[Fit, Any] = {(cohort, name, seed): _manifest(paths.fit(cohort, name, seed)) for seed in seeds}
            there = {fit: told for fit, told in fits.items() if told is not None}
            if there:  # else no model is imported to complete its settings
                settings = _settings(model.implementation, json.dumps(model.settings, sort_keys=True))
                wanted = now | _initial(model.settings.get("initial"))
                wanted["implementation"] = Path(model.implementation).stem
            for fit, told in there.items():
                if cohort in cohorts or _differs(told, wanted) or _differs(told.get("config", {}), settings):
                    found.add(fit)
    _add_those_that_start_from(found, plan, paths)
    return found | {(*average, MEAN) for average in plan.averages if _outdated_average(average, found, plan, paths)}


def _initial(weights: str | None) -> dict[str, Any]:
    """Hash of the weights that a fit starts from, as its manifest has it; nothing where there are none."""
    return {"initial": sha256_file(weights)} if weights and Path(weights).is_file() else {}


def _add_those_that_start_from(found: set[Fit], plan: Plan, paths: Paths) -> None:
    """Add to `found` fits those that are there and start from the weights of one of them, directly or not."""
    before = plan.following(paths)
    while more := {fit for fit, first in before.items() if first in found and _manifest(paths.fit(*fit))} - found:
        found |= more


def _outdated_average(average: tuple[str, str], found: set[Fit], plan: Plan, paths: Paths) -> bool:
    """Whether an average that is there is of other fits than its seeds are now, or of one of those `found`."""
    told = _manifest(paths.fit(*average, MEAN))
    if told is None:
        return False
    seeds: dict[str, Fit] = {f"seed{seed}": (*average, seed) for seed in plan.config.seeds}
    of = {name: Path(paths.fit(*each)) for name, each in seeds.items()}
    made = {name: sha256_file(path) for name, path in of.items() if path.is_file()}
    return told.get("mean_of", made) != made or bool(found & set(seeds.values()))


def _differs(told: dict[str, Any], now: dict[str, Any]) -> bool:
    return any(told.get(name, value) != value for name, value in now.items())


def _manifest(path: str) -> dict[str, Any] | None:
    """What a finished result says of itself; None where there is none, or nothing that can be read."""
    try:
        return dict(json.loads(Path(path).read_text()))
    except (OSError, ValueError):
        return None


@cache
def _settings(implementation: str, settings: str) -> dict[str, Any]:
    """Complete hyper-parameters, as a manifest holds them; none of those that no model takes (`check` says why)."""
    try:
        return dict(json.loads(json.dumps(asdict(check_config(implementation, json.loads(settings))))))
    except InputError:
        return {}
