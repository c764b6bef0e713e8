"""A real Kubernetes control plane on loopback, for the tests and for `make cluster`.

Kubernetes v1.37.2 and etcd v3.7.0 (`binaries/go.mod`), kubectl 1.37.1 and helm 4.3.1 (`clients.txt`).
"""
