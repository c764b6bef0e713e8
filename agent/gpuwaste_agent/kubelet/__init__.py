"""The kubelet's messages, generated from `proto/kubelet/podresources.proto`."""
