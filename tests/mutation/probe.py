"""`genoscan verify` on tiny models of every kind, in one process.

    python probe.py make FOLDER            write a genome and the models
    python probe.py run FOLDER MODULE      import the module, say so, and verify each model

`make` runs once, on sources without a fault.
"""

import importlib
import sys
from pathlib import Path

IMPORTED = "imported"
THREADS = {"mamba": 2, "mamba-pd-ssm": 1, "caduceus": 1}
"""Each model, and how many threads verify it."""
_LENGTH, _FIRST, _LAST = 600, 201, 400


def make(folder: Path) -> None:
    """Write genome.fa and a folder for each model."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch
    from commands import bases, tiny_model, write_fasta
    from toys import mixed_config, mixed_stack
    from truth import caduceus

    from genoscan.layers.foreign.families import read_foreign
    from genoscan.layers.weights import save_model, write_model

    letters = bases(_LENGTH, 1)
    letters = f"{letters[:300]}NNNNN{letters[305:]}"
    write_fasta(folder / "genome.fa", {"chr1": bases(300, 2), "chr2": letters})
    tiny_model(folder / "mamba")
    mixed = mixed_stack(16, dtype=torch.float32)
    save_model(folder / "mamba-pd-ssm", mixed_config(16), mixed, "# tiny\n")
    config = caduceus.config()
    caduceus.write(folder / "foreign", config, caduceus.tensors(config))
    write_model(folder / "caduceus", *read_foreign(folder / "foreign"), "# tiny\n")


def run(folder: Path, module: str) -> None:
    """Verify every model; what is wrong raises."""
    importlib.import_module(module)
    from genoscan.cli.verify import command

    print(IMPORTED, flush=True)
    for model, threads in THREADS.items():
        arguments = [
            *(folder / "genome.fa", "-r", f"chr2:{_FIRST}-{_LAST}"),
            *("-m", folder / model, "--tile", 40, "--slots", 3, "-t", threads),
        ]
        command.main([str(argument) for argument in arguments], standalone_mode=False)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        run(Path(sys.argv[2]), sys.argv[3])
