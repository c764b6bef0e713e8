"""Stand-ins for what a GPU node has and a machine without a GPU lacks, speaking the real protocols."""
