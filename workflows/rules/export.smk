# Something to look at.


rule page:
    input:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
        genome=GENOME,
        annotation=annotation(),
    output:
        report("results/{run}.html", category="tracks"),
    log:
        "logs/page/{run}.log",
    conda:
        "../envs/genoscan.yaml"
    params:
        genes=genes,
    shell:
        "genoscan export html {input.track} -g {input.genome} {params.genes:q} -o {output} 2> {log}"


rule report:
    input:
        track="results/{run}.bw",
        record="results/{run}.bw.json",
        genome=GENOME,
        annotation=annotation(),
    output:
        report("results/{run}.report.html", category="reports"),
    log:
        "logs/report/{run}.log",
    conda:
        "../envs/genoscan.yaml"
    params:
        genes=genes,
    shell:
        "genoscan report {input.track} -g {input.genome} {params.genes:q} -o {output} 2> {log}"
