# Shards need nothing of one another; together they are, byte for byte, what one run writes.


rule attribute:
    input:
        genome=genome,
        regions=regions,
        model=run_model,
        plan=ancient("results/plan.json"),
    output:
        scores=temp("results/shards/{run}/{shard}.bw"),
        record=temp("results/shards/{run}/{shard}.bw.json"),
    log:
        "logs/attribute/{run}/{shard}.log",
    benchmark:
        "benchmarks/attribute/{run}/{shard}.tsv"
    retries: 2
    conda:
        "../wrapper/environment.yaml"
    threads: config["threads"]
    params:
        question=question,
        shard=shard,
        device=config["device"],
        # Not {threads}, which is at most --cores: results depend on the number, and shards of one job must have the same.
        threads=config["threads"],
    shell:
        "genoscan attribute --bed={input.regions:q} --shard={params.shard:q} {params.question:q}"
        " --device={params.device:q} --threads={params.threads:q} --output={output.scores:q}"
        " -- {input.genome:q} 2> {log:q}"


rule merge:
    input:
        scores=scores,
        records=records,
        genome=genome,
    output:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
    log:
        "logs/merge/{run}.log",
    conda:
        "../wrapper/environment.yaml"
    shell:
        "genoscan track merge --genome={input.genome:q} --output={output.track:q}"
        " -- {input.scores:q} 2> {log:q}"
