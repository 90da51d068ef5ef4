"""What a run leaves behind for itself to go on from."""
