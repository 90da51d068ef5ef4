"""Two ways to run iterations, one interface: Python steps Gymnasium, or one program does everything."""
