"""`python -m raymae.cli`."""

from raymae.cli import main

main()
