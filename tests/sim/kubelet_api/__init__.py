"""The kubelet's plugin interfaces, written from their documented field numbers; see `generate.sh`."""
