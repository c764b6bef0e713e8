"""Stored inputs and the hourly ledger computed from them."""
