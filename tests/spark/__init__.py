"""Spark in a process of its own, for tests of what other engines make of the project's files."""
