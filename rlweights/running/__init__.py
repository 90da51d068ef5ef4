"""Ring 3: one run, its files, clocks and console."""
