# trains + split -> fit: weights, history and predictions of one model, cohort and seed.
# A fit runs again when its own settings, its data (by content) or the code it uses change: a comment reruns nothing.


rule fit:
    input:
        trains=per_session(TRAINS),
        split=SPLIT,
        initial=initial_of,
    output:
        whole(FIT),
    log:
        PATHS.log("fit", "{cohort}", "{model}", "seed{seed}"),
    benchmark:
        PATHS.benchmark("fit", "{cohort}", "{model}", "seed{seed}")
    wildcard_constraints:
        model=no(PLAN.ensembles) + no(COPIED, SEEDS[0]) + NAME.pattern,
    conda:
        "../envs/main.yaml"
    threads: PLAN.config.threads
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
        runtime=sized(pipeline_lib.resources.minutes, "fit"),
        # Counted only where a profile says how many there are; which one a job takes, it finds out itself.
        gpu=gpus_of,
    params:
        fit=fitted_by("pipeline_lib.training.fit"),
    shell:
        "python -m pipeline_lib fit --trains {input.trains:q} --split {input.split:q} --model {wildcards.model}"
        " --implementation {params.fit[implementation]:q} --settings {params.fit[settings]:q} --seed {wildcards.seed}"
        " --code {params.fit[code]} --out {output:q} > {log:q} 2>&1"


# Nothing in these models depends on the seed: it is the same fit again.
if COPIED:

    rule copy_fit:
        input:
            FIT.replace("{seed}", str(SEEDS[0])),
        output:
            [whole(path) for path in per_seed(FIT, SEEDS[1:])],
        log:
            PATHS.log("fit", "{cohort}", "{model}", "copies"),
        wildcard_constraints:
            model="|".join(map(re.escape, COPIED)),
        group:
            "copies"
        conda:
            "../envs/main.yaml"
        threads: 1
        resources:
            mem_mb=megabytes(500),
            runtime=10,
        params:
            seeds=SEEDS[1:],
            code=code_of("pipeline_lib.training.copy"),
        shell:
            "python -m pipeline_lib copy --fit {input:q} --seed {params.seeds} --out {output:q} > {log:q} 2>&1"


# All seeds of a model in one process, where the configuration says so of it (`ensemble: true`).
if PLAN.ensembles:

    rule fit_ensemble:
        input:
            trains=per_session(TRAINS),
            split=SPLIT,
            initial=initial_of,
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
            runtime=sized(pipeline_lib.resources.minutes, "fit", times=lambda wildcards: len(SEEDS)),
            gpu=gpus_of,
        params:
            fit=fitted_by("pipeline_lib.training.fit_ensemble"),
            seeds=SEEDS,
        shell:
            "python -m pipeline_lib fit --trains {input.trains:q} --split {input.split:q} --model {wildcards.model}"
            " --implementation {params.fit[implementation]:q} --settings {params.fit[settings]:q}"
            " --seed {params.seeds} --code {params.fit[code]} --out {output:q} > {log:q} 2>&1"
