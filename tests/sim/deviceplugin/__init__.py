"""Stand-in for NVIDIA's device plugin with its config-manager and feature discovery: the kubelet's v1beta1 API."""
