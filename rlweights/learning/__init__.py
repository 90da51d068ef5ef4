"""Ring 2: arrays in, arrays out. No files, no printing."""
