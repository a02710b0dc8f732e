"""`python -m llmbench`."""

from llmbench.cli.main import main

main()
