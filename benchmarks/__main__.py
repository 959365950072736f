"""python -m benchmarks"""

from benchmarks.cli import cli
from genoscan.cli import main

main(cli)
