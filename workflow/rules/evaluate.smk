# fit -> scores: the metrics of one fit, then one tidy table of all.


rule evaluate:
    input:
        fit=FIT,
        trains=per_session(TRAINS),
        recordings=per_session(RECORDING),
        split=SPLIT,
    output:
        SCORES,
    log:
        PATHS.log("evaluate", "{cohort}", "{model}", "seed{seed}"),
    group:
        "evaluate"
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=30,
    params:
        fit=lambda wildcards, input: dirname(input.fit),
        trains=lambda wildcards, input: folders(input.trains),
        recordings=lambda wildcards, input: folders(input.recordings),
        resamples=PLAN.config.evaluation.resamples,
        code=code_id(["pipeline_lib.evaluation.evaluate"]),
    shell:
        "python -m pipeline_lib evaluate --fit {params.fit:q} --trains {params.trains:q} --split {input.split:q}"
        " --recordings {params.recordings:q} --cohort {wildcards.cohort} --model {wildcards.model}"
        " --seed {wildcards.seed} --resamples {params.resamples} --out {output:q} > {log} 2>&1"


rule collect:
    input:
        [SCORES.format(cohort=cohort, model=model, seed=seed) for cohort, model, seed in PLAN.fits],
    output:
        METRICS,
    log:
        PATHS.log("collect"),
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=10,
    params:
        code=code_id(["pipeline_lib.evaluation.evaluate"]),
    shell:
        "python -m pipeline_lib collect {input:q} --out {output:q} > {log} 2>&1"
