"""The running operator: pull, store, compute, show; one loop decides."""
