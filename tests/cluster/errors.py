"""What can go wrong with the harness itself, as opposed to with what it tests."""

from __future__ import annotations

__all__ = ["ClusterError", "MissingToolsError"]


class ClusterError(Exception):
    """The local cluster could not be started, used or stopped; the message says what to do."""


class MissingToolsError(ClusterError):
    """This machine lacks a program that the harness cannot make by itself; the message says which."""
