"""Stand-in for the NVIDIA driver's `libnvidia-ml.so.1`: real ABI, GPUs and load from a scenario."""
