# trains + split -> fit: weights, history and predictions of one model, cohort and seed.
# A fit runs again when its own settings, its data (by content) or the code it uses change: a comment reruns nothing.


rule fit:
    input:
        trains=per_session(TRAINS),
        split=SPLIT,
    output:
        whole(FIT),
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
        gpu=gpus_of,
    params:
        fit=fit_of,
    shell:
        "python -m pipeline_lib fit --trains {input.trains:q} --split {input.split:q} --model {wildcards.model}"
        " --implementation {params.fit[implementation]:q} --settings {params.fit[settings]:q} --seed {wildcards.seed}"
        " --code {params.fit[code]} --out {output:q} > {log} 2>&1"


# All seeds of a model in one process, where the configuration says so of it (`ensemble: true`).
if PLAN.ensembles:
    fit_minutes = sized(pipeline_lib.resources.minutes, "fit")

    ruleorder: fit_ensemble > fit

    rule fit_ensemble:
        input:
            trains=per_session(TRAINS),
            split=SPLIT,
        output:
            [whole(path) for path in per_seed(FIT)],
        log:
            PATHS.log("fit", "{cohort}", "{model}", "ensemble"),
        benchmark:
            PATHS.benchmark("fit", "{cohort}", "{model}", "ensemble")
        wildcard_constraints:
            model="|".join(map(re.escape, PLAN.ensembles)),
        conda:
            "../envs/main.yaml"
        threads: PLAN.config.threads
        resources:
            mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
            # On a CPU seeds take as long together as one after the other.
            runtime=lambda wildcards, input, attempt: len(SEEDS) * fit_minutes(wildcards, input, attempt),
            gpu=gpus_of,
        params:
            fit=ensemble_of,
            seeds=SEEDS,
        shell:
            "python -m pipeline_lib fit --trains {input.trains:q} --split {input.split:q} --model {wildcards.model}"
            " --implementation {params.fit[implementation]:q} --settings {params.fit[settings]:q}"
            " --seed {params.seeds} --code {params.fit[code]} --out {output:q} > {log} 2>&1"
