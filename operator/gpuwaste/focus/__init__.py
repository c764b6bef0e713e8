"""FOCUS records: the cost of the nodes divided among those who held their GPUs, and the verifier of such files."""
