# fit -> scores: the metrics of one fit, then one tidy table of all.
# What the model expects in the training part, which readouts of behaviour are fitted to, is predicted only for them.


rule predict:
    input:
        fit=FIT,
        trains=per_session(TRAINS),
        split=SPLIT,
    output:
        PREDICTIONS,
    log:
        PATHS.log("predict", "{cohort}", "{model}", "seed{seed}"),
    conda:
        "../envs/main.yaml"
    threads: PLAN.config.threads
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
        runtime=sized(pipeline_lib.resources.minutes, "evaluate"),
    params:
        fit=lambda wildcards, input: dirname(input.fit),
        trains=lambda wildcards, input: folders(input.trains),
        implementation=lambda wildcards: model_of(wildcards).implementation,
        out=lambda wildcards, output: dirname(output[0]),
        code=code_id(["pipeline_lib.training.predict"]),
    shell:
        "python -m pipeline_lib predict --fit {params.fit:q} --trains {params.trains:q} --split {input.split:q}"
        " --implementation {params.implementation:q} --out {params.out:q} > {log} 2>&1"


rule evaluate:
    input:
        fit=FIT,
        training=PREDICTIONS if PLAN.config.evaluation.decoding else [],
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
        mem_mb=sized(pipeline_lib.resources.megabytes, "evaluate"),
        runtime=sized(pipeline_lib.resources.minutes, "evaluate"),
    params:
        fit=lambda wildcards, input: dirname(input.fit),
        trains=lambda wildcards, input: folders(input.trains),
        recordings=lambda wildcards, input: folders(input.recordings),
        resamples=PLAN.config.evaluation.resamples,
        few_shot=PLAN.config.evaluation.few_shot,
        decoding=lambda wildcards, input: (
            shlex.join(["--decoding", DECODING, "--train", dirname(input.training)]) if input.training else ""
        ),
        code=code_id(["pipeline_lib.evaluation.evaluate"]),
    shell:
        "python -m pipeline_lib evaluate --fit {params.fit:q} --trains {params.trains:q} --split {input.split:q}"
        " --recordings {params.recordings:q} --cohort {wildcards.cohort} --model {wildcards.model}"
        " --seed {wildcards.seed} --resamples {params.resamples} --few-shot {params.few_shot} {params.decoding} --out {output:q} > {log} 2>&1"


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
