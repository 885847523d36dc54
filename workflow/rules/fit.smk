# trains + split -> fit: weights, history and predictions of one model, cohort and seed.
# A fit runs again when its own settings, its data (by content) or the code it uses change: a comment reruns nothing.


rule fit:
    input:
        trains=per_session(TRAINS),
        split=SPLIT,
    output:
        FIT,
    log:
        PATHS.log("fit", "{cohort}", "{model}", "seed{seed}"),
    benchmark:
        PATHS.benchmark("fit", "{cohort}", "{model}", "seed{seed}")
    conda:
        "../envs/main.yaml"
    threads: PLAN.config.threads
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
        runtime=sized(pipeline_lib.resources.minutes, "fit"),
        # Counted only where a profile says how many there are; which one a job takes, it finds out itself.
        gpu=lambda wildcards: gpus_of(model_of(wildcards)),
    params:
        trains=lambda wildcards, input: folders(input.trains),
        implementation=lambda wildcards: model_of(wildcards).implementation,
        settings=lambda wildcards: json.dumps(model_of(wildcards).settings),
        out=lambda wildcards, output: dirname(output[0]),
        code=lambda wildcards: code_id(
            [
                "pipeline_lib.training.fit",
                model_source(model_of(wildcards).implementation),
            ]
        ),
    shell:
        "python -m pipeline_lib fit --trains {params.trains:q} --split {input.split:q} --model {wildcards.model}"
        " --implementation {params.implementation:q} --settings {params.settings:q} --seed {wildcards.seed}"
        " --code {params.code} --out {params.out:q} > {log} 2>&1"
