# everything made -> figures and the report. A figure is a PDF and a PNG, with the numbers behind it as CSV.


rule figure:
    input:
        unpack(figure_inputs),
    output:
        report(
            PATHS.figure("{of}{figure}") + ".png",
            caption="../report/figure.rst",
            category=lambda wildcards: FIGURE_SPECS[wildcards.figure].title,
            labels=lambda wildcards: {"of": dirname(wildcards.of) or "all"},
        ),
        pdf=PATHS.figure("{of}{figure}") + ".pdf",
        csv=PATHS.figure("{of}{figure}") + ".csv",
    log:
        PATHS.log("figures", "{of}{figure}"),
    wildcard_constraints:
        of="|".join(f"{of}/" for of in {*PLAN.sessions, *PLAN.cohorts}) + "|",
        figure="|".join(FIGURE_SPECS),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        stem=lambda wildcards: PATHS.figure(wildcards.figure, dirname(wildcards.of)),
        paths=figure_paths,
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
