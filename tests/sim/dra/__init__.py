"""Stand-in for NVIDIA's DRA driver: publishes ResourceSlices and prepares ResourceClaims for the kubelet."""
