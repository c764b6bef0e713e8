"""A simulated node: GPUs, processes and containers that follow a scenario file."""
