"""Summaries of the ledger by team, namespace, workload, pool and hour, and the report made of them."""
