"""Real nodes on one machine: containerd and a kubelet in namespaces of their own, with simulated GPUs."""
