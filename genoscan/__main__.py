"""Entry point of `python -m genoscan`."""

from genoscan.cli import main

main()
