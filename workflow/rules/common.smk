# The plan, the paths, the wildcards: what every rule shares. The logic is in pipeline_lib; here it is only looked up.
import json
import re
import shlex
import sys
from dataclasses import asdict
from os.path import dirname, exists
from pathlib import Path

import pipeline_lib.report
import pipeline_lib.resources
from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file
from pipeline_lib.figures import FIGURES as FIGURE_SPECS
from pipeline_lib.figures.subjects import FigureFiles
from pipeline_lib.models.registry import model_source
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.preflight import preflight
from pipeline_lib.training.code_id import code_id

CONFIG_NAME = ", ".join(str(path) for path in workflow.configfiles) or "config"
try:
    PLAN = resolve(config, CONFIG_NAME)
    ON_GPU = preflight(PLAN, CONFIG_NAME)
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)

# `python` in a rule is the interpreter that runs Snakemake (another may be first on the path), or that of the rule's own
# environment where the user asked for one (`--software-deployment-method conda`).
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH={shlex.quote(dirname(sys.executable))}:$PATH; ")

PATHS = Paths(PLAN.config.results, PLAN.config.data)
SIMULATION = PATHS.simulation("{simulation}")
RECORDING = PATHS.recording("{session}")
TRAINS = PATHS.trains("{session}")
SPLIT = PATHS.split("{cohort}")
FIT = PATHS.fit("{cohort}", "{model}", "{seed}")
PREDICTIONS = PATHS.predictions("{cohort}", "{model}", "{seed}")
SCORES = PATHS.scores("{cohort}", "{model}", "{seed}")
TRIAL = PATHS.trial("{search}", "{cohort}", "{generation}", "{member}")
SEARCH = PATHS.search("{search}", "{cohort}")
SEARCHES = [PATHS.search(search, cohort) for search, cohort in PLAN.searched]
METRICS = PATHS.metrics
DECODING = json.dumps({name: asdict(target) for name, target in PLAN.config.evaluation.decoding.items()})
REPORT = PATHS.report
REPORT_TEMPLATES = sorted(Path(pipeline_lib.report.__file__).parent.glob("*.html"))
REPORT_ARGUMENTS = shlex.join(
    [
        "--results",
        PLAN.config.results,
        "--config",
        json.dumps(PLAN.config.model_dump(mode="json")),
    ]
)


wildcard_constraints:
    simulation="|".join(PLAN.config.simulations) or "none",
    session="|".join(PLAN.sessions),
    cohort="|".join(PLAN.cohorts),
    model="|".join({model for _, model, _ in PLAN.fits}),
    seed=r"\d+",
    search="|".join(PLAN.searches) or "none",
    generation=r"\d\d",
    member=r"\d\d",


def folders(paths):
    """The folders that declared files complete."""
    return [dirname(path) for path in paths]


def session_of(wildcards):
    return PLAN.sessions[wildcards.session]


def cohort_of(wildcards):
    return PLAN.cohorts[wildcards.cohort]


def model_of(wildcards):
    return cohort_of(wildcards).models[wildcards.model]


# Sessions that are somewhere else, by the folder below `data` that they are fetched to; several rows of the session
# sheet may read the same one in different ways.
REMOTE = {}
for each in PLAN.sessions.values():
    if each.remote:
        REMOTE.setdefault(str(each.remote.folder("")), []).append(each)


def source_files(wildcards):
    """What the recording is made from: the manifest of a simulation or a download, or the user's file itself."""
    session = session_of(wildcards)
    if session.simulation:
        return SIMULATION.format(simulation=session.simulation)
    if session.remote:
        return PATHS.fetched(session.remote.folder(""))
    return session.location


def simulation_of(wildcards):
    return PLAN.config.simulations[wildcards.simulation]


def gpus_of(model):
    """One for each process of a fit, where its model can use one."""
    return model.settings.get("processes", 1) if model.implementation in ON_GPU else 0


def per_session(pattern):
    """Input function: `pattern` for every session of the cohort."""
    return lambda wildcards: [pattern.format(session=session) for session in cohort_of(wildcards).sessions]


def megabytes(base, per_input=0.0):
    """Memory of a job: `base` and `per_input` times its inputs; more with every attempt."""
    return lambda wildcards, input, attempt: int((base + per_input * input.size_mb) * attempt)


def sized(estimate, kind):
    """Memory or run time of a job by the size of its cohort's trains; more with every attempt."""
    return lambda wildcards, input, attempt: estimate(
        kind, input.trains, cohort_of(wildcards).windows.bin_size, attempt
    )


def trials(wildcards, generations):
    """The trials of some generations of a search."""
    members = range(PLAN.searches[wildcards.search].members)
    return [
        TRIAL.format(search=wildcards.search, cohort=wildcards.cohort, generation=f"{g:02d}", member=f"{m:02d}")
        for g in generations
        for m in members
    ]


def generation_before(wildcards):
    """What a trial follows from: the trials of the generation before, none for the first."""
    return trials(wildcards, range(max(int(wildcards.generation) - 1, 0), int(wildcards.generation)))


def all_trials(wildcards):
    return trials(wildcards, range(PLAN.searches[wildcards.search].rounds))
