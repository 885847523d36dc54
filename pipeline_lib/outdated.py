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
from pipeline_lib.outdated_data import outdated_data
from pipeline_lib.paths import Paths
from pipeline_lib.plan import Plan

Fit = tuple[str, str, int | str]


def outdated_fits(plan: Plan, paths: Paths) -> set[Fit]:
    """Fits of the plan, averages over seeds among them, that were made with other hyper-parameters, another split or
    other spike trains than those that are here now, as their manifests say (what they do not say is taken as right),
    and those of cohorts that are to be split anew.

    Of the code nothing is asked: it changes with every version, and Snakemake knows whether that matters.
    """
    found: set[Fit] = set()
    cohorts = outdated_data(plan, paths).cohorts
    for cohort in plan.scored:
        split = Path(paths.split(cohort))
        now: dict[str, Any] = {"split": sha256_file(split)} if split.is_file() else {}
        stores = {name: _manifest(paths.trains(name)) for name in plan.cohorts[cohort].sessions}
        if all(stores.values()):
            now["trains"] = {name: told["content_hash"] for name, told in stores.items() if told}
        for fit in plan.predicted(cohort):
            told = _manifest(paths.fit(*fit))
            if told is None:
                continue
            if cohort in cohorts:
                differs = True
            elif fit[2] == MEAN:  # follows its seeds
                seeds = {f"seed{seed}": (cohort, fit[1], seed) for seed in plan.config.seeds}
                of = {name: Path(paths.fit(*each)) for name, each in seeds.items()}
                made = {name: sha256_file(path) for name, path in of.items() if path.is_file()}
                differs = told.get("mean_of", made) != made or bool(found & set(seeds.values()))
            else:
                model = plan.cohorts[cohort].models[fit[1]]
                settings = _settings(model.implementation, json.dumps(model.settings, sort_keys=True))
                differs = _differs(told, now) or _differs(told.get("config", {}), settings)
            if differs:
                found.add(fit)
    return found


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
