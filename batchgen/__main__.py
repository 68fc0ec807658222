"""Lets `python -m batchgen` run the command."""

from batchgen.cli import main

main()
