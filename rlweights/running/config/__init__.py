"""Agent files: what they may hold, and what is said about mistakes in them."""
