"""The Kubernetes API: one small protocol, its real and in-memory forms, informers and the cluster's state."""
