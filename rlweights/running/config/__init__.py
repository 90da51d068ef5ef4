"""Agent files: their schema, and the messages about mistakes in them."""
