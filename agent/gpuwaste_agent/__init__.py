"""The node agent: who holds a GPU, who uses it, and how much, without guessing."""

__version__ = "0.1.0"
