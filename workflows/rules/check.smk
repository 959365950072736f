# All inputs are read, and all jobs planned, before the first one is computed.


localrules:
    settings,
    check,


rule settings:
    output:
        "results/config.json",
    log:
        "logs/settings.log",
    params:
        config=config,
    run:
        Path(output[0]).write_text(json.dumps(config, indent=1))


checkpoint check:
    input:
        config="results/config.json",
        genome=genome,
        annotation=annotation,
        files=entries,
    output:
        "results/plan.json",
    log:
        "logs/check.log",
    conda:
        "../wrapper/environment.yaml"
    shell:
        "genoscan workflow check --output={output:q} -- {input.config:q} 2>&1 | tee {log:q} >&2"
