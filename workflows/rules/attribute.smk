# Shards need nothing of one another; together they are, byte for byte, what one run writes.


rule attribute:
    input:
        genome=GENOME,
        regions=regions,
    output:
        columns=temp("results/shards/{run}/{scatteritem}.npz"),
        record=temp("results/shards/{run}/{scatteritem}.npz.json"),
    log:
        "logs/attribute/{run}/{scatteritem}.log",
    benchmark:
        "benchmarks/attribute/{run}/{scatteritem}.tsv"
    retries: 2
    conda:
        "../envs/genoscan.yaml"
    threads: config["threads"]
    params:
        question=question,
        shard=shard,
        device=config["device"],
    shell:
        "genoscan attribute {input.genome} --bed {input.regions} --shard {params.shard}"
        " {params.question:q} --device {params.device} --threads {threads}"
        " -o {output.columns} 2> {log}"


rule merge:
    input:
        columns=gather.shards("results/shards/{{run}}/{scatteritem}.npz"),
        records=gather.shards("results/shards/{{run}}/{scatteritem}.npz.json"),
        genome=GENOME,
    output:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
    log:
        "logs/merge/{run}.log",
    conda:
        "../envs/genoscan.yaml"
    shell:
        "genoscan track merge {input.columns} -g {input.genome} -o {output.track} 2> {log}"
