# The plan, the paths, the wildcards: what every rule shares. The logic is in pipeline_lib; here it is only looked up.
import json
import re
import shlex
import sys
from dataclasses import asdict
from os.path import dirname, exists
from pathlib import Path

import pipeline_lib.report
from pipeline_lib.errors import InputError
from pipeline_lib.files import sha256_file
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
SCORES = PATHS.scores("{cohort}", "{model}", "{seed}")
METRICS = PATHS.metrics
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


def per_session(pattern):
    """Input function: `pattern` for every session of the cohort."""
    return lambda wildcards: [pattern.format(session=session) for session in cohort_of(wildcards).sessions]


def megabytes(base, per_input=0.0):
    """Memory of a job: `base` and `per_input` times its inputs; more with every attempt."""
    return lambda wildcards, input, attempt: int((base + per_input * input.size_mb) * attempt)


# A figure belongs to a session or a cohort, and lies in a folder of its name, or to all of the results.
SUBJECTS = {"session": list(PLAN.sessions), "cohort": list(PLAN.cohorts), "all": [""]}
FIGURES = [
    PATHS.figure(name, of) + ".png"
    for name in PLAN.config.figures or FIGURE_SPECS
    for of in SUBJECTS[FIGURE_SPECS[name].scope]
]


def figure_inputs(wildcards):
    """The declared files behind a figure, by the names that it knows them by."""
    spec, of = FIGURE_SPECS[wildcards.figure], dirname(wildcards.of)
    files = {"metrics": METRICS, "fits": [PATHS.fit(*fit) for fit in PLAN.fits]}
    session = of
    if spec.scope == "cohort":
        session = PLAN.cohorts[of].sessions[0]
        files["split"] = PATHS.split(of)
        files["fits"] = [PATHS.fit(of, model, PLAN.config.seeds[0]) for model in PLAN.cohorts[of].models]
    files |= {"recording": PATHS.recording(session), "trains": PATHS.trains(session)}
    return {need: files[need] for need in spec.needs}


def figure_paths(wildcards, input):
    """The same as the figure wants them: a folder, where the declared file completes one."""
    paths = {}
    for need in FIGURE_SPECS[wildcards.figure].needs:
        path = dirname if need in ("recording", "trains", "fits") else str
        paths[need] = path(input[need]) if isinstance(input[need], str) else [path(file) for file in input[need]]
    return json.dumps(paths)
