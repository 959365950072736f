"""Make the inputs of the golden case; the command in README.md makes the rest."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from commands import bases, tiny_model, write_fasta  # noqa: E402

letters = bases(420, 5)
write_fasta(
    HERE / "tiny.fa", {"chr1": f"{letters[:200]}NNNNN{letters[205:300].lower()}{letters[300:]}", "chr2": bases(180, 6)}
)
(HERE / "regions.bed").write_text(
    "chr1\t20\t80\tforward\t0\t+\n"
    "chr1\t70\t110\toverlap\t0\t+\n"
    "chr1\t190\t260\treverse\t0\t-\n"
    "chr2\t140\t180\tend\t0\t.\n"
    "chr2\t30\t31\tone base\t0\t-\n"
)
tiny_model(HERE / "model")
