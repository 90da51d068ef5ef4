"""Ring 4: many runs."""
