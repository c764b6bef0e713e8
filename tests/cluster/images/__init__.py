"""The project's own images, built from its Dockerfiles without a registry, for clusters on this machine."""
