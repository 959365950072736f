# Something to look at.


rule page:
    input:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
        genome=genome,
        annotation=annotation,
    output:
        report("results/{run}.html", category="tracks"),
    log:
        "logs/page/{run}.log",
    conda:
        "../wrapper/environment.yaml"
    params:
        genes=genes,
    shell:
        "genoscan export html --genome={input.genome:q} {params.genes:q} --output={output:q}"
        " -- {input.track:q} 2> {log:q}"


rule report:
    input:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
        genome=genome,
        annotation=annotation,
    output:
        report("results/{run}.report.html", category="reports"),
    log:
        "logs/report/{run}.log",
    conda:
        "../wrapper/environment.yaml"
    params:
        genes=genes,
    shell:
        "genoscan report --genome={input.genome:q} {params.genes:q} --output={output:q}"
        " -- {input.track:q} 2> {log:q}"


rule overview:
    input:
        genome=genome,
        tracks=expand("results/{run}.bw", run=config.get("runs", {})),
        effects=expand("results/variants/{name}.tsv", name=config.get("variants", {})),
        mutations=expand(
            "results/mutations/{name}.npz", name=config.get("mutations", {})
        ),
        # Linked by the page.
        pages=expand("results/{run}.html", run=config.get("runs", {})),
        reports=expand("results/{run}.report.html", run=config.get("runs", {})),
    output:
        report("results/index.html", category="overview"),
    log:
        "logs/overview.log",
    conda:
        "../wrapper/environment.yaml"
    shell:
        "genoscan export overview --genome={input.genome:q} --output={output:q}"
        " -- {input.tracks:q} {input.effects:q} {input.mutations:q} 2> {log:q}"
