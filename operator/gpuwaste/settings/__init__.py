"""Settings of the operator and the commands: one frozen model, read once at the edge."""
