# The plan, the paths, the wildcards: what every rule shares. The logic is in pipeline_lib; here it is only looked up.
import json
import shlex
import sys
from dataclasses import asdict
from os.path import exists

from pipeline_lib.errors import InputError
from pipeline_lib.figures import FIGURES as FIGURE_SPECS
from pipeline_lib.models.registry import model_source
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.preflight import preflight
from pipeline_lib.training.code_id import code_id

CONFIG_NAME = ", ".join(str(path) for path in workflow.configfiles) or "config"
try:
    PLAN = resolve(config, CONFIG_NAME)
    preflight(PLAN, CONFIG_NAME)
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)

# The interpreter that runs Snakemake has the library; `python` on the path may be another.
CLI = f"{shlex.quote(sys.executable)} -m pipeline_lib"

PATHS = Paths(PLAN.config.results, PLAN.config.data)
SIMULATION = PATHS.simulation("{simulation}")
RECORDING = PATHS.recording("{session}")
TRAINS = PATHS.trains("{session}")
SPLIT = PATHS.split("{cohort}")
FIT = PATHS.fit("{cohort}", "{model}", "{seed}")
SCORES = PATHS.scores("{cohort}", "{model}", "{seed}")
METRICS = PATHS.metrics
REPORT = PATHS.report
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


def folder(path):
    """The folder that a declared file completes."""
    return str(path).rpartition("/")[0]


def folders(paths):
    return [folder(path) for path in paths]


def session_of(wildcards):
    return PLAN.sessions[wildcards.session]


def cohort_of(wildcards):
    return PLAN.cohorts[wildcards.cohort]


def per_session(pattern):
    """Input function: `pattern` for every session of the cohort."""
    return lambda wildcards: [
        pattern.format(session=session) for session in cohort_of(wildcards).sessions
    ]


def megabytes(base, per_input=0.0):
    """Memory of a job: `base` and `per_input` times its inputs; more with every attempt."""
    return lambda wildcards, input, attempt: int(
        (base + per_input * input.size_mb) * attempt
    )
