"""Stand-in for NVIDIA's mig-manager: obeys the node label `nvidia.com/mig.config`, with the real one's failings."""
