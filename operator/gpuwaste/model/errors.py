"""The one hierarchy of errors; the commands and the operator map it in one place each."""

from __future__ import annotations

__all__ = ["GpuwasteError", "InputError", "InvariantError", "UnreachableError"]


class GpuwasteError(Exception):
    """Anything gpuwaste raises on purpose. `exit_code` is what a command ends with."""

    exit_code = 1


class InputError(GpuwasteError):
    """What a person or a file gave is wrong.

    Args:
        what: what is wrong, in one sentence without a final full stop.
        where: file, row or line, field or object, as far as it is known.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        """Join the three parts into one line: ``where: what; fix``."""
        self.what, self.where, self.fix = what, where, fix
        line = f"{where}: {what}" if where else what
        super().__init__(f"{line}; {fix}" if fix else line)


class UnreachableError(GpuwasteError):
    """Something needed did not answer: an API server, a Prometheus, a store. Trying again may help."""

    exit_code = 3


class InvariantError(GpuwasteError):
    """A law of the accounting does not hold. Nothing was written; this is a bug to be reported."""
