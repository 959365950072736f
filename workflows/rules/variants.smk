# Effects of given variants, and of every substitution of given regions.


rule variants:
    input:
        genome=genome,
        variants=variants,
        model=variants_model,
        plan=ancient("results/plan.json"),
    output:
        vcf="results/variants/{variants}.vcf.gz",
        vcf_record="results/variants/{variants}.vcf.gz.json",
        table="results/variants/{variants}.tsv",
        table_record="results/variants/{variants}.tsv.json",
    log:
        "logs/variants/{variants}.log",
    benchmark:
        "benchmarks/variants/{variants}.tsv"
    retries: 2
    conda:
        "../wrapper/environment.yaml"
    threads: config["threads"]
    params:
        question=variants_question,
        device=config["device"],
        # Not {threads}, which is at most --cores: results depend on the number, and shards of one job must have the same.
        threads=config["threads"],
    shell:
        "genoscan variants {params.question:q} --device={params.device:q} --threads={params.threads:q}"
        " --output={output.vcf:q} --output={output.table:q}"
        " -- {input.genome:q} {input.variants:q} 2> {log:q}"


rule mutate:
    input:
        genome=genome,
        regions=mutated_regions,
        model=mutations_model,
        plan=ancient("results/plan.json"),
    output:
        archive="results/mutations/{mutations}.npz",
        archive_record="results/mutations/{mutations}.npz.json",
        table="results/mutations/{mutations}.tsv",
        table_record="results/mutations/{mutations}.tsv.json",
    log:
        "logs/mutate/{mutations}.log",
    benchmark:
        "benchmarks/mutate/{mutations}.tsv"
    retries: 2
    conda:
        "../wrapper/environment.yaml"
    threads: config["threads"]
    params:
        question=mutations_question,
        device=config["device"],
        threads=config["threads"],
    shell:
        "genoscan mutate --bed={input.regions:q} {params.question:q} --device={params.device:q}"
        " --threads={params.threads:q} --output={output.archive:q} --output={output.table:q}"
        " -- {input.genome:q} 2> {log:q}"
