# everything made -> figures and the report. A figure is a PDF and a PNG, with the numbers behind it as CSV.
# It belongs to a session, to a session of a cohort, or to all of the results: its folder says to which.


rule figure:
    input:
        unpack(lambda wildcards: FIGURE_FILES.declared([wildcards.figure], "")),
    output:
        report(
            PATHS.figure("{figure}") + ".png",
            caption="../report/figure.rst",
            category=lambda wildcards: FIGURE_SPECS[wildcards.figure].title,
            labels={"of": "all sessions"},
        ),
        beside=beside(["{figure}"], ""),
    log:
        PATHS.log("figures", "{figure}"),
    benchmark:
        PATHS.benchmark("figures", "{figure}")
    wildcard_constraints:
        figure="|".join(FIGURE_FILES.of_all) or "none",
    conda:
        "../envs/main.yaml"
    # No group: Snakemake asks whether a grouped job is ready as often as squared its inputs, and these have thousands.
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        config=configuration,
        out=lambda wildcards, output: dirname(output[0]),
        caption=lambda wildcards: FIGURE_SPECS[wildcards.figure].caption,
        code=lambda wildcards: code_of_figures([wildcards.figure])(wildcards),
    shell:
        "python -m pipeline_lib figure {wildcards.figure} --config {params.config} --out {params.out:q} > {log:q} 2>&1"


for figures in FIGURE_FILES.sets:

    rule:
        name:
            figures.rule
        input:
            unpack(inputs_of_figures(figures.names)),
        output:
            [to_report(name, "{of}") for name in figures.names],
            beside=beside(figures.names, "{of}"),
        log:
            PATHS.log("figures", "{of}", figures.rule),
        benchmark:
            PATHS.benchmark("figures", "{of}", figures.rule)
        wildcard_constraints:
            of=figures.pattern,
        group:
            "figures"
        conda:
            "../envs/main.yaml"
        threads: 1
        resources:
            mem_mb=megabytes(2000),
            runtime=15,
        params:
            names=figures.names,
            config=configuration,
            out=lambda wildcards, output: Path(output[0]).parents[wildcards.of.count("/") + 1],
            code=code_of_figures(figures.names),
        shell:
            "python -m pipeline_lib figure {params.names} --of {wildcards.of} --config {params.config} --out {params.out:q}"
            " > {log:q} 2>&1"


rule report_page:
    input:
        listed(FIGURES),
        metrics=METRICS,
        # Read as they are found; an object store has to be asked for them.
        stored=listed(OF_REPORT if STORED else []),
    output:
        REPORT,
    log:
        PATHS.log("report"),
    benchmark:
        PATHS.benchmark("report", "all")
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=10,
    params:
        results=lambda wildcards, output: dirname(output[0]),
        code=code_of("pipeline_lib.report"),
        config=CONFIG,
        page=[sha256_file(template) for template in REPORT_TEMPLATES],
    shell:
        "python -m pipeline_lib report --config {params.config} --results {params.results:q} --out {output:q} > {log:q} 2>&1"
