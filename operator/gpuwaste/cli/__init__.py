"""The `gpuwaste` program; `kubectl gpuwaste` is the same."""
