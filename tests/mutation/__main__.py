"""Run the mutation test: python -m tests.mutation --seed 1 -o build/mutation.json"""

import argparse
from pathlib import Path

from .groups import GROUPS
from .run import BAR, run, share_settled, table

parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
parser.add_argument("--seed", type=int, default=1, help="decides which mutants are made")
parser.add_argument(
    "-o",
    "--output",
    type=Path,
    default=Path("build/mutation.json"),
    help="results; the same command goes on where it was stopped",
)
parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
given = parser.parse_args()
rows = run(given.seed, given.output, given.groups)
print(table(rows))
raise SystemExit(share_settled(rows) < BAR)
