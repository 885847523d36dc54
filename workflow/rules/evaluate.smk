# fit -> scores: the metrics of the fits of one model, then one tidy table of all.
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
        " --implementation {params.implementation:q} --out {output:q} > {log} 2>&1"


# All seeds in one job: scoring one takes less time than starting Python.
rule evaluate:
    input:
        fits=per_seed(FIT),
        training=per_seed(PREDICTIONS) if PLAN.config.evaluation.decoding else [],
        trains=per_session(TRAINS),
        recordings=per_session(RECORDING),
        split=SPLIT,
    output:
        per_seed(SCORES),
    log:
        PATHS.log("evaluate", "{cohort}", "{model}"),
    benchmark:
        PATHS.benchmark("evaluate", "{cohort}", "{model}")
    group:
        "evaluate"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "evaluate"),
        runtime=sized(pipeline_lib.resources.minutes, "evaluate"),
    params:
        seeds=SEEDS,
        resamples=PLAN.config.evaluation.resamples,
        few_shot=PLAN.config.evaluation.few_shot,
        decoding=f"--decoding {shlex.quote(DECODING)} --train" if PLAN.config.evaluation.decoding else "",
        code=code_of("pipeline_lib.evaluation.evaluate"),
    shell:
        "python -m pipeline_lib evaluate --fit {input.fits:q} --trains {input.trains:q} --split {input.split:q}"
        " --recordings {input.recordings:q} --cohort {wildcards.cohort} --model {wildcards.model} --seed {params.seeds}"
        " --resamples {params.resamples} --few-shot {params.few_shot} {params.decoding} {input.training:q}"
        " --out {output:q} > {log} 2>&1"


rule collect:
    input:
        listed(PATHS.scores(*fit) for fit in PLAN.fits),
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
        "python -m pipeline_lib collect --config {params.config} --results {params.results:q} --out {output:q} > {log} 2>&1"
