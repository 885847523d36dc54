# fits -> scores: the metrics of the fits of a cohort, then one tidy table of all.
# What the model expects in the training part, which readouts of behaviour are fitted to, is predicted only for them.


rule predict:
    input:
        fit=FIT,
        trains=per_session(TRAINS),
        split=SPLIT,
    output:
        whole(PREDICTIONS),
    log:
        PATHS.log("predict", "{cohort}", "{model}", "seed{seed}"),
    benchmark:
        PATHS.benchmark("predict", "{cohort}", "{model}", "seed{seed}")
    conda:
        "../envs/main.yaml"
    threads: PLAN.config.threads
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
        runtime=sized(pipeline_lib.resources.minutes, "evaluate"),
    params:
        implementation=lambda wildcards: model_of(wildcards).implementation,
        code=code_of("pipeline_lib.training.predict"),
    shell:
        "python -m pipeline_lib predict --fit {input.fit:q} --trains {input.trains:q} --split {input.split:q}"
        " --implementation {params.implementation:q} --out {output:q} > {log:q} 2>&1"


# The mean over the seeds of a model, where the configuration says so of it (`average_seeds`): a prediction like any other.
if PLAN.averaged:

    rule average:
        input:
            per_seed(FIT),
        output:
            whole(PATHS.fit("{cohort}", "{model}", MEAN)),
        log:
            PATHS.log("average", "{cohort}", "{model}", MEAN),
        benchmark:
            PATHS.benchmark("average", "{cohort}", "{model}", MEAN)
        wildcard_constraints:
            model="|".join(map(re.escape, PLAN.averaged)),
        group:
            "evaluate"
        conda:
            "../envs/main.yaml"
        threads: 1
        resources:
            mem_mb=megabytes(1500),
            runtime=10,
        params:
            code=code_of("pipeline_lib.evaluation.average"),
        shell:
            "python -m pipeline_lib average --fit {input:q} --out {output:q} > {log:q} 2>&1"

    use rule average as average_training with:
        input:
            per_seed(PREDICTIONS),
        output:
            whole(PATHS.predictions("{cohort}", "{model}", MEAN)),
        log:
            PATHS.log("average", "{cohort}", "{model}", "training"),
        benchmark:
            PATHS.benchmark("average", "{cohort}", "{model}", "training")


# All fits of a cohort in one job: scoring one takes less time than starting Python.
rule evaluate:
    input:
        **SCORED_WITH,
        fits=per_prediction(PATHS.fit),
        training=to_decode(per_prediction(PATHS.predictions)),
    output:
        SCORES,
    log:
        PATHS.log("evaluate", "{cohort}"),
    benchmark:
        PATHS.benchmark("evaluate", "{cohort}")
    group:
        "evaluate"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "evaluate"),
        runtime=sized(
            pipeline_lib.resources.minutes, "evaluate", times=lambda wildcards: len(cohort_of(wildcards).models)
        ),
    params:
        how=scoring(),
        code=code_of("pipeline_lib.evaluation.evaluate"),
    shell:
        "python -m pipeline_lib evaluate --fit {input.fits:q} --trains {input.trains:q} --split {input.split:q}"
        " --recordings {input.recordings:q} {params.how} {input.training:q} --out {output:q} > {log:q} 2>&1"


# One fit, for who asks for that cell alone, or for what a model that fails leaves of its cohorts (`snakemake scores`).
use rule evaluate as evaluate_fit with:
    input:
        **SCORED_WITH,
        fits=FIT,
        training=to_decode(PREDICTIONS),
    output:
        SCORES_OF_FIT,
    log:
        PATHS.log("evaluate", "{cohort}", "{model}", "seed{seed}"),
    benchmark:
        PATHS.benchmark("evaluate", "{cohort}", "{model}", "seed{seed}")
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "evaluate"),
        runtime=sized(pipeline_lib.resources.minutes, "evaluate"),


if PLAN.averaged:

    use rule evaluate_fit as evaluate_average with:
        input:
            **SCORED_WITH,
            fits=PATHS.fit("{cohort}", "{model}", MEAN),
            training=to_decode(PATHS.predictions("{cohort}", "{model}", MEAN)),
        output:
            PATHS.scores_of_fit("{cohort}", "{model}", MEAN),
        log:
            PATHS.log("evaluate", "{cohort}", "{model}", MEAN),
        benchmark:
            PATHS.benchmark("evaluate", "{cohort}", "{model}", MEAN)


rule collect:
    input:
        listed(map(PATHS.scores, PLAN.scored)),
    output:
        METRICS,
    log:
        PATHS.log("collect"),
    benchmark:
        PATHS.benchmark("collect", "all")
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=10,
    params:
        config=configuration,
        results=lambda wildcards, output: dirname(output[0]),
        code=code_of("pipeline_lib.evaluation.evaluate"),
    shell:
        "python -m pipeline_lib collect --config {params.config} --results {params.results:q} --out {output:q} > {log:q} 2>&1"
