"""Everything under one name: `python -m rlweights train cartpole`."""

from rlweights.cli import main

main()
