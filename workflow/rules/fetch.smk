# source -> recording: the tables of one session, whatever it came from.


rule simulate:
    output:
        whole(SIMULATION),
    log:
        PATHS.log("simulate", "{simulation}"),
    benchmark:
        PATHS.benchmark("simulate", "{simulation}")
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(2000),
        runtime=30,
    params:
        simulation=lambda wildcards: simulation_of(wildcards).model_dump(exclude={"settings"}),
        settings=lambda wildcards: told(simulation_of(wildcards).settings),
        code=lambda wildcards: code_id(
            [
                "pipeline_lib.sources.simulate.store",
                f"pipeline_lib.sources.simulate.{simulation_of(wildcards).simulator}",
            ]
        ),
    shell:
        "python -m pipeline_lib simulate --simulator {params.simulation[simulator]} --layout {params.simulation[layout]}"
        " --seed {params.simulation[seed]} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"


rule fetch:
    output:
        whole(DOWNLOADS.fetched("{remote}"), DOWNLOADS),
    log:
        PATHS.log("fetch", "{remote}"),
    wildcard_constraints:
        remote="|".join(map(re.escape, REMOTE)) or "none",
    # Where Snakemake is told to keep downloads for other projects. Else it would remind of that at every start.
    cache: "omit-software" if CACHED else False
    # Compute nodes often have no way out.
    localrule: True
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes(1000),
        runtime=720,
        downloads=1,
    params:
        location=lambda wildcards: REMOTE[wildcards.remote][0].remote.text,
        source=lambda wildcards: REMOTE[wildcards.remote][0].source,
        options=lambda wildcards: [json.dumps(session.options) for session in REMOTE[wildcards.remote]],
        data=lambda wildcards, output: output[0].removesuffix(DOWNLOADS.fetched(wildcards.remote)) + PLAN.config.data,
        ledger=f"--ledger {shlex.quote(PLAN.config.downloads.ledger)}" if PLAN.config.downloads.ledger else "",
        accept=PLAN.config.downloads.accept,
        sdk="--sdk" if PLAN.config.downloads.sdk else "",
        parallel=PLAN.config.downloads.parallel,
        cache=f"--cache {shlex.quote(PLAN.config.downloads.cache)}" if PLAN.config.downloads.cache else "",
    shell:
        "python -m pipeline_lib fetch --location {params.location:q} --source {params.source}"
        " --options {params.options:q} --data {params.data:q} {params.ledger} --accept {params.accept:q}"
        " {params.sdk} --parallel {params.parallel} {params.cache} > {log:q} 2>&1"
        " && touch {output:q}"


rule record:
    input:
        source_files,
    output:
        whole(RECORDING),
    log:
        PATHS.log("record", "{session}"),
    benchmark:
        PATHS.benchmark("record", "{session}")
    conda:
        "../envs/main.yaml"
    threads: 1
    resources:
        mem_mb=megabytes_to_record,
        runtime=60,
    params:
        source=lambda wildcards: session_of(wildcards).source,
        location=location_of,
        options=lambda wildcards: told(session_of(wildcards).options),
        code=lambda wildcards: code_id(
            [source_code(session_of(wildcards).source)]
            + ["pipeline_lib.sources.simulate.store"] * bool(session_of(wildcards).simulation)
        ),
    shell:
        "python -m pipeline_lib record --session {wildcards.session} --source {params.source:q} --location {params.location:q}"
        " --options {params.options:q} --out {output:q} > {log:q} 2>&1"
