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
