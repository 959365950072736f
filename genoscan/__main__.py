"""python -m genoscan"""

from genoscan.cli import main

main()
