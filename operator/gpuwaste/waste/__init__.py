"""What the ledger says of workloads and pools, and the objects that show it."""
