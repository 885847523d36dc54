# recording -> trains -> split: what every model reads, written once.


rule convert:
    input:
        RECORDING,
    output:
        whole(TRAINS),
    log:
        PATHS.log("convert", "{session}"),
    benchmark:
        PATHS.benchmark("convert", "{session}")
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=30,
    params:
        counts=PLAN.config.counts,
        code=code_of("pipeline_lib.trains.store"),
    shell:
        "python -m pipeline_lib convert --recording {input:q} --counts {params.counts} --out {output:q} > {log:q} 2>&1"


rule split:
    input:
        trains=per_session(TRAINS),
        file=split_file,
    output:
        SPLIT,
    log:
        PATHS.log("split", "{cohort}"),
    benchmark:
        PATHS.benchmark("split", "{cohort}")
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        windows=lambda wildcards: json.dumps(asdict(cohort_of(wildcards).windows)),
        splits=lambda wildcards: json.dumps(asdict(cohort_of(wildcards).splits)),
        timing=timing,
        code=code_of("pipeline_lib.trains.splits"),
    shell:
        "python -m pipeline_lib split --trains {input.trains:q} --cohort {wildcards.cohort} --windows {params.windows:q}"
        " --splits {params.splits:q} {params.timing} --out {output:q} > {log:q} 2>&1"
