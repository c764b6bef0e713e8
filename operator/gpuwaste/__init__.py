"""Measure, price, pack and bill the GPU time of a Kubernetes cluster."""

__version__ = "0.1.0"
