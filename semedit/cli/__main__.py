"""`python -m semedit.cli`: the same as the script `semedit`."""

from semedit.cli import main

main()
