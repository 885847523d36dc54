# trains + split -> search: trials as jobs, then a table of all of them and the best settings.
# A generation of a population follows from the scores of the one before; a random search has one generation.


rule search_trial:
    input:
        trains=per_session(TRAINS),
        split=SPLIT,
        search=search_file,
        before=generation_before,
        initial=initial_of_search,
    output:
        whole(TRIAL),
    log:
        PATHS.log("search", "{search}", "{cohort}", "generation{generation}", "member{member}"),
    conda:
        "../envs/main.yaml"
    threads: PLAN.config.threads
    resources:
        mem_mb=sized(pipeline_lib.resources.megabytes, "fit"),
        runtime=sized(pipeline_lib.resources.minutes, "fit"),
        gpu=lambda wildcards: int(search_of(wildcards).model in ABLE["uses_gpu"]),
    params:
        out=lambda wildcards, output: output[0].rpartition(f"/generation{wildcards.generation}/")[0],
        code=lambda wildcards: code_id(
            [
                "pipeline_lib.training.search",
                model_source(search_of(wildcards).model),
            ]
        ),
    shell:
        "python -m pipeline_lib search --trains {input.trains:q} --split {input.split:q} --search {input.search:q}"
        " --trial {wildcards.generation} {wildcards.member} --out {params.out:q} > {log:q} 2>&1"


rule search:
    input:
        trains=per_session(TRAINS),
        split=SPLIT,
        search=search_file,
        trials=all_trials,
    output:
        SEARCH,
    log:
        PATHS.log("search", "{search}", "{cohort}", "search"),
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=30,
    params:
        out=lambda wildcards, output: dirname(output[0]),
    shell:
        "python -m pipeline_lib search --trains {input.trains:q} --split {input.split:q} --search {input.search:q}"
        " --out {params.out:q} > {log:q} 2>&1"
