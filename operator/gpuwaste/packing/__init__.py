"""Packing of pods onto GPU nodes with a proven bound; the only package that may import OR-Tools."""
