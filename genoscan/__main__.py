"""Entry point for `python -m genoscan`."""

from genoscan.cli import main

main()
