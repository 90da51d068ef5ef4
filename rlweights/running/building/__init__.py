"""From a validated configuration to the objects that run."""
