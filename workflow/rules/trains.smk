# recording -> trains -> split: what every model reads, written once.


rule convert:
    input:
        RECORDING,
    output:
        TRAINS,
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
        recording=lambda wildcards, input: dirname(input[0]),
        out=lambda wildcards, output: dirname(output[0]),
        counts=PLAN.config.counts,
        code=code_id(["pipeline_lib.trains.store"]),
    shell:
        "python -m pipeline_lib convert --recording {params.recording:q} --counts {params.counts} --out {params.out:q} > {log} 2>&1"


rule split:
    input:
        trains=per_session(TRAINS),
        file=lambda wildcards: cohort_of(wildcards).splits.file or [],
    output:
        SPLIT,
    log:
        PATHS.log("split", "{cohort}"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=15,
    params:
        trains=lambda wildcards, input: folders(input.trains),
        windows=lambda wildcards: json.dumps(asdict(cohort_of(wildcards).windows)),
        splits=lambda wildcards: json.dumps(asdict(cohort_of(wildcards).splits)),
        code=code_id(["pipeline_lib.trains.splits"]),
    shell:
        "python -m pipeline_lib split --trains {params.trains:q} --cohort {wildcards.cohort} --windows {params.windows:q}"
        " --splits {params.splits:q} --out {output:q} > {log} 2>&1"
