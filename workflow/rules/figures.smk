# everything made -> figures and the report. A figure is a PDF and a PNG, with the numbers behind it as CSV.
# It belongs to a session, to a session of a cohort, or to all of the results: its folder says to which.
FIGURE_FILES = FigureFiles(PLAN, PATHS)
FIGURES = [f"{stem}.png" for stem in FIGURE_FILES.stems]
SUBJECTS = sorted({of for spec in FIGURE_SPECS.values() for of in FIGURE_FILES.subjects(spec.scope)} - {""})


rule figure:
    input:
        unpack(lambda wildcards: FIGURE_FILES.declared(wildcards.figure, dirname(wildcards.of))),
    output:
        report(
            PATHS.figure("{of}{figure}") + ".png",
            caption="../report/figure.rst",
            category=lambda wildcards: FIGURE_SPECS[wildcards.figure].title,
            labels=lambda wildcards: {"of": dirname(wildcards.of) or "all sessions"},
        ),
        pdf=PATHS.figure("{of}{figure}") + ".pdf",
        csv=PATHS.figure("{of}{figure}") + ".csv",
    log:
        PATHS.log("figures", "{of}{figure}"),
    benchmark:
        PATHS.benchmark("figures", "{of}{figure}")
    wildcard_constraints:
        of="|".join(f"{re.escape(of)}/" for of in SUBJECTS) + "|",
        figure="|".join(FIGURE_SPECS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        stem=lambda wildcards: PATHS.figure(wildcards.figure, dirname(wildcards.of)),
        caption=lambda wildcards: FIGURE_SPECS[wildcards.figure].caption,
        paths=lambda wildcards, input: json.dumps(FIGURE_FILES.arguments(wildcards.figure, dict(input.items()))),
        code=lambda wildcards: code_id([f"pipeline_lib.figures.{FIGURE_SPECS[wildcards.figure].module}"]),
    shell:
        "python -m pipeline_lib figure {wildcards.figure} --paths {params.paths:q} --stem {params.stem:q} > {log} 2>&1"


rule report_page:
    input:
        METRICS,
        FIGURES,
    output:
        REPORT,
    log:
        PATHS.log("report"),
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=10,
    params:
        arguments=REPORT_ARGUMENTS,
        code=code_id(["pipeline_lib.report"]),
        page=[sha256_file(template) for template in REPORT_TEMPLATES],
    shell:
        "python -m pipeline_lib report {params.arguments} --out {output:q} > {log} 2>&1"
