# everything made -> figures and the report. A figure is a PDF and a PNG, with the numbers behind it as CSV.

CHOSEN = PLAN.config.figures or list(FIGURE_SPECS)
# A figure belongs to a session or a cohort, and lies in a folder of its name, or to all of the results.
SUBJECTS = {"session": list(PLAN.sessions), "cohort": list(PLAN.cohorts), "all": [""]}
FIGURES = [
    PATHS.figure(name, of) + ".png"
    for name in CHOSEN
    for of in SUBJECTS[FIGURE_SPECS[name].scope]
]


def figure_inputs(wildcards):
    """The declared files behind a figure, by the names that it knows them by."""
    spec, of = FIGURE_SPECS[wildcards.figure], wildcards.of.rstrip("/")
    files = {"metrics": METRICS, "fits": [PATHS.fit(*fit) for fit in PLAN.fits]}
    session = of
    if spec.scope == "cohort":
        cohort, session = PLAN.cohorts[of], PLAN.cohorts[of].sessions[0]
        files["split"] = PATHS.split(of)
        files["fits"] = [
            PATHS.fit(of, model, PLAN.config.seeds[0]) for model in cohort.models
        ]
    files |= {"recording": PATHS.recording(session), "trains": PATHS.trains(session)}
    return {need: files[need] for need in spec.needs}


def figure_paths(wildcards, input):
    """The same as the figure wants them: a folder, where the declared file completes one."""

    def path(need, file):
        return folder(file) if need in ("recording", "trains", "fits") else str(file)

    needs = FIGURE_SPECS[wildcards.figure].needs
    files = {need: input[need] for need in needs}
    return json.dumps(
        {
            need: (
                path(need, each)
                if isinstance(each, str)
                else [path(need, file) for file in each]
            )
            for need, each in files.items()
        }
    )


rule figure:
    input:
        unpack(figure_inputs),
    output:
        report(
            PATHS.figure("{of}{figure}") + ".png",
            caption="../report/figure.rst",
            category=lambda wildcards: FIGURE_SPECS[wildcards.figure].title,
            labels=lambda wildcards: {"of": wildcards.of.rstrip("/") or "all"},
        ),
        pdf=PATHS.figure("{of}{figure}") + ".pdf",
        csv=PATHS.figure("{of}{figure}") + ".csv",
    log:
        PATHS.log("figures", "{of}{figure}"),
    wildcard_constraints:
        of="|".join(f"{of}/" for of in {*PLAN.sessions, *PLAN.cohorts}) + "|",
        figure="|".join(FIGURE_SPECS),
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        stem=lambda wildcards: PATHS.figure(wildcards.figure, wildcards.of.rstrip("/")),
        paths=figure_paths,
        code=lambda wildcards: code_id(
            [f"pipeline_lib.figures.{FIGURE_SPECS[wildcards.figure].module}"]
        ),
    shell:
        "{CLI} figure {wildcards.figure} --paths {params.paths:q} --stem {params.stem:q} > {log} 2>&1"


rule report_page:
    input:
        METRICS,
        FIGURES,
    output:
        REPORT,
    log:
        PATHS.log("report"),
    localrule: True
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=10,
    params:
        arguments=REPORT_ARGUMENTS,
        code=code_id(["pipeline_lib.report"]),
    shell:
        "{CLI} report {params.arguments} --out {output:q} > {log} 2>&1"
