# The plan, the paths, the wildcards: what every rule shares. The logic is in pipeline_lib; here it is only looked up.
# Snakemake asks every job for its inputs, parameters and resources, some of them several times. Of a thousand sessions
# that is most of the time before the first job starts: rules of fits and scores ask little, and of functions that cache.
import inspect
import json
import re
import shlex
import sys
from dataclasses import asdict
from functools import cache
from os.path import dirname
from pathlib import Path

import pipeline_lib.report
import pipeline_lib.resources
from pipeline_lib.arguments import as_argument, keep_sheet, sheet_of_run
from pipeline_lib.config import NAME
from pipeline_lib.errors import InputError, suggest
from pipeline_lib.evaluation.settings import MEAN
from pipeline_lib.figures import FIGURES as FIGURE_SPECS
from pipeline_lib.figures.subjects import FigureFiles, caption_file
from pipeline_lib.files import sha256_file
from pipeline_lib.made_with import told
from pipeline_lib.models.registry import model_source
from pipeline_lib.paths import Paths
from pipeline_lib.plan import resolve
from pipeline_lib.preflight import preflight
from pipeline_lib.room import NOTES, NoRoomError, complaints, require_room
from pipeline_lib.sources import session_files, source_code
from pipeline_lib.sources.origin import MANIFEST
from pipeline_lib.training.code_id import code_id
from pipeline_lib.yaml_text import read_yaml

CONFIG_NAME = ", ".join([*map(str, workflow.configfiles), *["--config"] * bool(workflow.config_settings.config)])
CONFIG_NAME = CONFIG_NAME or "config"  # of a module, as it is given there
try:
    if workflow.is_main_process:
        require_room(NOTES)  # Snakemake's own errors about that go over pages
    # Snakemake has read them, but takes the last of two keys of one name.
    for file in workflow.configfiles:
        read_yaml(file)
    # A job of a cluster plans anew, perhaps hours later: of the session sheet as it was when the run began.
    AS_BEGUN = {} if workflow.is_main_process else {"sessions": sheet_of_run(config["sessions"])}
    PLAN = resolve(config | AS_BEGUN, CONFIG_NAME)
    SHEET = keep_sheet(PLAN.config.sessions)
    ABLE = preflight(PLAN, CONFIG_NAME)
except (InputError, NoRoomError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)

# `python` in a rule is the interpreter that runs Snakemake (another may be first on the path), or that of the rule's own
# environment where the user asked for one (`--software-deployment-method conda`).
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH={shlex.quote(dirname(sys.executable))}:$PATH; ")

# Results in an object store (`--default-storage-provider`): there only what is declared travels between jobs, so the
# folder of a stage is declared, not the file that completes it.
STORED = bool(workflow.storage_settings.default_storage_provider)
PATHS = Paths(PLAN.config.results, PLAN.config.data, folders=STORED)
# So it is with downloads that Snakemake keeps for other projects (`--cache`).
CACHED = workflow.workflow_settings.cache is not None
DOWNLOADS = Paths(PLAN.config.results, PLAN.config.data, folders=STORED or CACHED)
SEEDS = PLAN.config.seeds
# What no seed changes is fitted for the first and copied for the others.
COPIED = PLAN.copied(ABLE["random"])
SIMULATION = PATHS.simulation("{simulation}")
RECORDING = PATHS.recording("{session}")
TRAINS = PATHS.trains("{session}")
SPLIT = PATHS.split("{cohort}")
FIT = PATHS.fit("{cohort}", "{model}", "{seed}")
PREDICTIONS = PATHS.predictions("{cohort}", "{model}", "{seed}")
SCORES = PATHS.scores("{cohort}")
SCORES_OF_FIT = PATHS.scores_of_fit("{cohort}", "{model}", "{seed}")
TRIAL = PATHS.trial("{search}", "{cohort}", "{generation}", "{member}")
SEARCH = PATHS.search("{search}", "{cohort}")
SEARCHES = [PATHS.search(search, cohort) for search, cohort in PLAN.searched]
FITS = [PATHS.fit(*fit) for fit in PLAN.fits]
KNOWN_FITS = set(FITS)
AVERAGES = [PATHS.fit(*each, MEAN) for each in PLAN.averages]
METRICS = PATHS.metrics
RESULTS = PLAN.config.results
ONERROR = PATHS.log("onerror")
UNFINISHED = PATHS.unfinished
REPORT = PATHS.report
REPORT_TEMPLATES = sorted(Path(pipeline_lib.report.__file__).parent.glob("*.html"))
SETTINGS = PLAN.config.model_dump(mode="json")
CONFIG = shlex.quote(as_argument(SETTINGS))
# With the session sheet as it was when the run began, whatever is edited while its jobs wait.
CONFIG_OF_RUN = shlex.quote(as_argument(SETTINGS | {"sessions": str(SHEET)}))
FIGURE_FILES = FigureFiles(PLAN, PATHS)
FIGURES = [f"{stem}.png" for stem in FIGURE_FILES.stems]
OF_REPORT = [*map(PATHS.trains, PLAN.sessions), *map(PATHS.recording, PLAN.sessions), *FITS]
OF_REPORT += map(PATHS.split, PLAN.scored)
OF_REPORT += [f"{stem}.csv" for stem in FIGURE_FILES.stems]


# Names are not spelt out: a thousand of them in a pattern cost more to match than to look up.
wildcard_constraints:
    simulation=NAME.pattern,
    session=NAME.pattern,
    cohort=NAME.pattern,
    model=NAME.pattern,
    search=NAME.pattern,
    seed=r"\d+",
    generation=r"\d\d",
    member=r"\d\d",


def whole(path, paths=PATHS):
    """As the output of a rule: the file that declares a stage complete, or its folder in an object store."""
    return directory(path) if paths.folders else path


def named(kind, name, known):
    if name not in known:
        raise InputError(CONFIG_NAME, kind, repr(name), suggest(name, known))
    return known[name]


def often(function):
    """A function of which Snakemake asks the parameters whenever it calls it: remembered, that takes a tenth."""
    function.__signature__ = inspect.signature(function)
    return function


def listed(files):
    """Input function: files that only the jobs that are asked for need looking at."""
    files = list(files)
    return lambda wildcards: files


def code_of(*modules):
    """Parameter: what the code of a job does."""
    return often(lambda wildcards: code_id(modules))


def session_of(wildcards):
    return named("session", wildcards.session, PLAN.sessions)


def cohort_of(wildcards):
    return named("cohort", wildcards.cohort, PLAN.cohorts)


def model_of(wildcards):
    return named("model", wildcards.model, cohort_of(wildcards).models)


def simulation_of(wildcards):
    return named("simulation", wildcards.simulation, PLAN.config.simulations)


def search_of(wildcards):
    return named("search", wildcards.search, PLAN.searches)


# Sessions that are somewhere else, by the folder below `data` that they are fetched to; several rows of the session
# sheet may read the same one in different ways.
REMOTE = {}
for each in PLAN.sessions.values():
    if each.remote:
        REMOTE.setdefault(str(each.remote.folder("")), []).append(each)
# Somebody may have removed a download, which the results still call fetched.
if not DOWNLOADS.folders:
    for folder in REMOTE:
        if not Path(PLAN.config.data, folder, MANIFEST).is_file():
            Path(DOWNLOADS.fetched(folder)).unlink(missing_ok=True)


def source_files(wildcards):
    """What the recording is made from: the manifest of a simulation or a download, or the user's files themselves."""
    session = session_of(wildcards)
    if session.simulation:
        return PATHS.simulation(session.simulation)
    if session.remote:
        # What Snakemake keeps for other projects (`--cache`) is linked here file by file, and taken as it is.
        manifest = session.remote.folder(PLAN.config.data) / MANIFEST
        linked = manifest.is_symlink() and not DOWNLOADS.folders
        return str(manifest) if linked else DOWNLOADS.fetched(session.remote.folder(""))
    return users_files(session.session)


@cache
def users_files(name):
    session = PLAN.sessions[name]
    return [local(str(file)) for file in session_files(session.source, session.location, session.options)]


def location_of(wildcards, input):
    """Where the recording is read from. A copy from an object store lies in a folder of Snakemake's."""
    session = session_of(wildcards)
    if not STORED or not (session.simulation or session.remote):
        return session.location
    return input[0] + session.location.removeprefix(str(source_files(wildcards)))


def split_file(wildcards):
    """A split that the user brings, if any."""
    file = cohort_of(wildcards).splits.file
    return local(file) if file else []


def search_file(wildcards):
    return local(f"{PLAN.config.search_directory}/{wildcards.search}.yaml")


@often
def initial_of(wildcards):
    """The weights that a fit starts from, if any; where a fit of this configuration makes them, that fit."""
    return weights(model_of(wildcards).settings.get("initial"))


def initial_of_search(wildcards):
    """The weights that the trials of a search start from, if any."""
    return weights(search_of(wildcards).fixed.get("initial"))


def weights(initial):
    if not initial:
        return []
    fit = str(Path(initial)).replace("model.safetensors", "manifest.json")
    return fit if fit in KNOWN_FITS else local(initial)


def fitted_by(module):
    """Parameter: what fits are made with by this module; they run again when any of it changes."""

    @cache
    def made_with(implementation, settings):
        code = code_id([module, model_source(implementation)])
        return {"implementation": implementation, "settings": settings, "code": code}

    def of(wildcards):
        model = model_of(wildcards)
        return made_with(model.implementation, told(model.settings))

    return often(of)


@often
def gpus_of(wildcards):
    """One for each process of a fit, where its model can use one."""
    model = model_of(wildcards)
    return model.settings.get("processes", 1) if model.implementation in ABLE["uses_gpu"] else 0


def per_session(pattern):
    """Input function: `pattern` for every session of the cohort."""
    return often(lambda wildcards: [pattern.format(session=session) for session in cohort_of(wildcards).sessions])


def per_prediction(path):
    """Input function: `path` for every fit of the cohort, and for the averages over seeds."""
    return often(lambda wildcards: [path(*each) for each in PLAN.predicted(cohort_of(wildcards).cohort)])


def per_seed(pattern, seeds=SEEDS):
    """`pattern` for every seed; the other wildcards stay."""
    return [pattern.replace("{seed}", str(seed)) for seed in seeds]


def no(models, seed=""):
    """Look-ahead, before a model's name in a path: none of these, or none of them with another seed than this one."""
    names = "|".join(map(re.escape, models))
    return f"(?!(?:{names})/seed(?!{seed}(?:/|$)))" if models else ""


def megabytes(base):
    """Memory of a job: `base`; more with every attempt."""
    return often(lambda wildcards, attempt: base * attempt)


def megabytes_to_record(wildcards, input, attempt):
    """By the size of what is read: of a simulation or download, of the session that the input says is there."""
    session, size = session_of(wildcards), input.size
    if session.simulation or session.remote:
        size += pipeline_lib.resources.size(location_of(wildcards, input))
    return pipeline_lib.resources.megabytes_to_record(size, pipeline_lib.resources.rows(input), attempt)


# Of a cohort, beside the fits, what they are scored with.
SCORED_WITH = {"trains": per_session(TRAINS), "recordings": per_session(RECORDING), "split": SPLIT}


def to_decode(predictions):
    """Predictions of training parts, which only readouts are fitted to."""
    return predictions if PLAN.config.evaluation.decoding else []


def scoring():
    """Arguments of the verb `evaluate` that every job has; what is decoded from follows them."""
    settings = PLAN.config.evaluation
    arguments = f"--resamples {settings.resamples} --few-shot {' '.join(map(str, settings.few_shot))}"
    if not settings.decoding:
        return arguments
    targets = json.dumps({name: asdict(target) for name, target in settings.decoding.items()})
    return f"{arguments} --decoding {shlex.quote(targets)} --train"


def timing(wildcards, output):
    """Parameter: the times of trials that scores will need, which the first job that has the trials looks at.

    Of a function of its output, Snakemake asks for no change: a split stays where only these times change.
    """
    targets = {name: asdict(target) for name, target in PLAN.config.evaluation.decoding.items() if target.timing}
    return f"--decoding {shlex.quote(json.dumps(targets))}" if targets else ""


def sized(estimate, kind, times=lambda wildcards: 1):
    """Memory or run time of a job by the size of its cohort's trains; more with every attempt."""
    return often(
        lambda wildcards, input, attempt: times(wildcards)
        * estimate(kind, input.trains, cohort_of(wildcards).windows.bin_size, attempt)
    )


def trials(wildcards, generations):
    """The trials of some generations of a search."""
    members = range(search_of(wildcards).members)
    return [
        PATHS.trial(wildcards.search, wildcards.cohort, f"{g:02d}", f"{m:02d}") for g in generations for m in members
    ]


def generation_before(wildcards):
    """What a trial follows from: the trials of the generation before, none for the first."""
    return trials(wildcards, range(max(int(wildcards.generation) - 1, 0), int(wildcards.generation)))


def all_trials(wildcards):
    return trials(wildcards, range(search_of(wildcards).rounds))


def configuration(wildcards, output):
    """Parameter: where a job looks up its files. Of a function of its output, Snakemake asks for no change to rerun."""
    return CONFIG_OF_RUN


def to_report(name, of):
    """A figure that Snakemake's own report shows, too."""
    title = FIGURE_SPECS[name].title
    return report(
        f"{PATHS.figure(name, of)}.png", caption=caption_file(name), category=title, labels={"of": of or "all"}
    )


def beside(names, of):
    """What is made with the PNG of each figure."""
    return [f"{PATHS.figure(name, of)}.{suffix}" for name in names for suffix in ("pdf", "csv")]


def inputs_of_figures(names):
    return lambda wildcards: FIGURE_FILES.declared(names, wildcards.of)


def code_of_figures(names):
    return code_of(*[f"pipeline_lib.figures.{FIGURE_SPECS[name].module}" for name in names])
