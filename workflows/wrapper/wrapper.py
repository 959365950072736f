"""genoscan attribute as a step of any workflow: meta.yaml says what it takes."""

from snakemake.shell import shell

bed = snakemake.input.get("regions")
regions = [f"--bed={bed}"] if bed else []
# Records and indexes appear by themselves, beside what they are of.
beside = ".json", ".tbi", ".csi"
tracks = [f"--output={path}" for path in snakemake.output if not path.endswith(beside)]
extra = snakemake.params.get("extra", "")
log = snakemake.log_fmt_shell(stdout=False, stderr=True)
shell(
    "genoscan attribute {snakemake.input.genome:q} {regions:q} {extra} --threads {snakemake.threads} {tracks:q} {log}"
)
