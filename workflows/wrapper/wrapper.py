"""genoscan attribute as a step of any workflow: meta.yaml says what it takes."""

import shlex

from snakemake.shell import shell

bed = snakemake.input.get("regions")
regions = [f"--bed={bed}"] if bed else []
# Records and indexes appear by themselves, beside what they are of.
beside = ".json", ".tbi", ".csi"
tracks = [f"--output={path}" for path in snakemake.output if not path.endswith(beside)]
# Split here, so that the shell expands nothing in it.
extra = shlex.split(snakemake.params.get("extra", ""))
# log_fmt_shell does not quote the path.
log = f"2> {shlex.quote(str(snakemake.log))}" if snakemake.log else ""
shell(
    "genoscan attribute {regions:q} {extra:q} --threads={snakemake.threads} {tracks:q}"
    " -- {snakemake.input.genome:q} {log}"
)
